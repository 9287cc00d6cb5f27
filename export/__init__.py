"""Checkpoint -> proven model folder. The only part of boothsam, with training, that needs PyTorch.

checkpoints.KNOWN, find_checkpoint     published checkpoints: licence, size, sha256, source (no torch needed)
checkpoints.load_checkpoint            a file to an `architectures.Sam`
download.download                      a known checkpoint by name, resumed and hash-checked (no torch needed)
folder.export_checkpoint               what `boothsam export` does: load, trace, check, prove, write
to_onnx.export_model                   a Sam to four graphs
parity.check_parity                    those graphs against the Sam
"""
