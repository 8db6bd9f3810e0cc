"""Fine-tuning on somebody's own pictures without being an expert: look, choose, write the choice down, run it, compare.

facts: of the data, the model and the machine. choices: from facts to a plan, a pure function. writing: the plan as a
configuration file. outcome: the better of start and best, and the report.
"""
