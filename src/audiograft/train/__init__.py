"""Training on transformers' Trainer: recipe -> rows -> batches -> a trained, loadable model. Imports no torch by itself."""
