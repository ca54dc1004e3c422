"""The store of predicted masks: manifests and failures."""
