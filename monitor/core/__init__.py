"""The pure core: values in, values out; no clock, no await, no logger, no registry."""
