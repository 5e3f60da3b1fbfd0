"""Masked next token prediction: teach a decoder to read in both directions.

LLM2Vec's first stage (arXiv 2404.05961, section 2.1 and appendix D.1.1). The decoder loses its causal mask, some of its
input tokens are hidden, and a LoRA adapter learns to predict each from the state before it.

    # one GPU: Mistral-7B as published, about 100 minutes on an A100
    python training_scripts/mntp.py --config training_scripts/configs/llm2vec_mistral_7b_unsupervised.yaml \
        --output runs/mistral-mntp

    # many GPUs: 32 blocks in a step as published, 4 on each of 8
    accelerate launch --config_file training_scripts/accelerate/ddp.yaml --num_processes 8 training_scripts/mntp.py \
        --config training_scripts/configs/llm2vec_mistral_7b_unsupervised.yaml --output runs/mistral-mntp \
        --set training.per_device_train_batch_size=4

    # a tiny run on a CPU, with what the package brings along: seconds, and it teaches nothing
    python training_scripts/mntp.py --tiny --output runs/tiny-mntp

    # your own decoder and texts
    python training_scripts/mntp.py --model org/decoder --output runs/mine --set data=texts.txt

The same command again continues an interrupted run. The output is an encoder; simcse.py and supervised.py start from it.
"""

from __future__ import annotations

from accelerate import PartialState
from command_line import read_command_line
from sentence_transformers import SentenceTransformerTrainer

from st_llm2vec.losses import MNTPLoss


def main() -> None:
    # 1. Settings. The folder keeps them, so that it never mixes two runs.
    [stage] = read_command_line(__doc__, "mntp")
    if not stage.begin():
        print(f"{stage.output} holds the finished run.")
        return

    # 2. The decoder without its causal mask, the texts in blocks of tokens, and an adapter.
    encoder = stage.start()
    data = stage.read(encoder)
    stage.attach(encoder)

    # 3. What it learns by: the masked tokens, through the decoder's own output head.
    loss = MNTPLoss(
        encoder,
        stage.mlm_probability,
        stage.masking,
        stage.mask_token,
        head=stage.head,
        train_head=stage.train_head,
        seed=stage.arguments().seed,
    )
    evaluator = stage.evaluator(encoder, loss)

    # 4. The stock trainer.
    trainer = SentenceTransformerTrainer(
        model=encoder,
        args=stage.arguments(data, evaluator),
        train_dataset=data.dataset,
        loss=loss,
        evaluator=evaluator,
        callbacks=stage.callbacks(),
    )

    # 5. Continue from the last checkpoint if there is one; merge the adapter, note what was trained on what, and save.
    stage.train(trainer, data)
    if PartialState().is_main_process:
        print(f"The encoder is in {stage.output}.")


if __name__ == "__main__":
    main()
