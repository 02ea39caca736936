"""The process: ``agent`` builds every part once and owns start and stop, ``reload`` and ``drain`` are what may happen
to it in between, ``handover`` how the next process takes its place.
"""
