"""Verify: have a device measure the models, and judge what it measured."""
