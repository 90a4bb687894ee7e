"""How the demo models are made: from nothing but these scripts, on one core of a CPU, the same way each time.

    pip install -e '.[demo-models]'
    python -m models.recipes build demo-chat       # in the checkout; writes models/demo-chat.gguf
    python -m models.recipes evaluate demo-chat    # asks what was never trained, prints a table

Each model is a package here with a `RECIPE`: its data, its training, its export and its evaluation. Seeds and counts of
steps are fixed; no time enters, so that a slow machine makes the same model. PyTorch's sums depend on the processor
in the last digit, and training enlarges that: expect the same figures give or take a point, not the same bytes.

The tools are those of the optional extra `demo-models`; the program itself needs none of them.
"""
