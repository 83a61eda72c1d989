"""The same doors, and the lamp above another one."""

from train import Feeder


def moved_lamp():
    return Feeder(lamp_above_food=False)
