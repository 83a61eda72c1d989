"""Sales whose column was not filled in later."""

from train import Sales


def like_training():
    return Sales(500, True, seed=8)


def nothing_booked():
    return Sales(500, False, seed=9)


def prediction(outputs, batch):
    return outputs.prediction[:, 0]


def sold(batch, outputs):
    return (outputs - batch[1][0]).abs()


def booked(batch, outputs):
    return (outputs - batch[0]["booked"]).abs()
