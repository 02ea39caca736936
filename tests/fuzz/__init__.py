"""Fuzzing with coverage as the guide (atheris): `make fuzz`. Not part of `make test`."""
