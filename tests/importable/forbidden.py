"""Not to be imported by a configuration: the tests look whether it was."""


def fire(*_, **__):
    raise SystemError("code of a configuration was executed")
