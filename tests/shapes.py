"""Models that are like another but for a few dimensions."""

from dataclasses import replace

from tuner.ask.models.attention import Attention


def reshaped(model, *, attention=None, mlp=None, experts=None, layers=None, **shape):
    """The model with changed fields in every attention, MLP and mixture; ``layers``: so many, the kinds in turn."""

    def changed(block):
        mixer = block.mixer
        if attention and isinstance(mixer, Attention):
            mixer = replace(mixer, **attention)
        own_mlp = replace(block.mlp, **mlp) if mlp and block.mlp else block.mlp
        own_experts = replace(block.experts, **experts) if experts and block.experts else block.experts
        return replace(block, mixer=mixer, mlp=own_mlp, experts=own_experts)

    kinds = tuple(changed(block) for block in model.kinds)
    order = model.order if layers is None else tuple(i % len(kinds) for i in range(layers))
    return replace(model, kinds=kinds, order=order, **shape)
