"""Shipping: a signed bundle brought to devices over links, one device or a fleet in waves; the device's own runner decides."""
