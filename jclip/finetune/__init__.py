"""Fine-tuning on your own images with automatic settings, for `jclip finetune`.

facts: the data, the model, the machine. choices: a pure function from facts to a plan. writing: the plan as a
configuration file. finetuning: plan, then train and compare. outcome: the better model and the report.
"""
