"""How another machine is reached: `interface.py` says what a link does, each other file is one way to have one.

A link knows nothing of models, bundles or measurements: it runs commands and moves files. `verify` measures through one,
`release` ships through one.
"""
