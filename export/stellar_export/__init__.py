"""Turns official checkpoints into stellar-score model packs."""

__version__ = "0.1.0"
EXPORTER = f"stellar_export {__version__}"
