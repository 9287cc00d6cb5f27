"""SAM's networks as compact torch modules under the official state-dict names. `config` needs no torch, `sam.build`
does.
"""
