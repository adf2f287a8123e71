"""From labelled images and a pretrained backbone to a checkpoint: the only room that imports timm.

`stage.train` is the way in. It resolves the weights (`weights`), builds the network (`network`), fits the head on frozen
features (`probe`), then all layers (`finetune`, at the rates of `schedule`), on images varied in batches (`augment`), saving
its state as it goes (`state`). All randomness is a function of the recipe's seed, the epoch and the step, so that a run that
was killed ends with the same weights as one that was not.
"""
