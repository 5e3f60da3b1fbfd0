"""PromptEOL-CSE: contrastive tuning of the state in which a decoder would say one word for a sentence.

PromptEOL's fine-tuning (arXiv 2307.16645, section 3.3). Attention stays causal; a sentence stands in a prompt that asks for
its meaning in one word, and the last token's state is its vector. An adapter, as published over 4-bit weights, learns from
NLI triplets: a premise, what it entails, and what contradicts it.

    # one GPU: OPT-2.7B; 256 rows in a step as published, 64 texts at a time (pip install "st-llm2vec[qlora]")
    python training_scripts/prompteol_cse.py --config training_scripts/configs/prompteol_cse_opt_2.7b.yaml \
        --output runs/prompteol-opt-2.7b --set training.per_device_train_batch_size=256 --set mini_batch_size=64

    # many GPUs: as published, 128 rows on each of 2
    accelerate launch --config_file training_scripts/accelerate/ddp.yaml --num_processes 2 \
        training_scripts/prompteol_cse.py --config training_scripts/configs/prompteol_cse_opt_2.7b.yaml \
        --output runs/prompteol-opt-2.7b

    # a tiny run on a CPU, with what the package brings along: seconds, and it teaches nothing
    python training_scripts/prompteol_cse.py --tiny --output runs/tiny-prompteol

The same command again continues an interrupted run. For 16-bit weights: --set adapter.quantize=null --set dtype=bfloat16.
"""

from __future__ import annotations

from accelerate import PartialState
from command_line import read_command_line
from sentence_transformers import SentenceTransformerTrainer

from st_llm2vec.losses import CachedHardNegativesRankingLoss, HardNegativesRankingLoss


def main() -> None:
    # 1. Settings. The folder keeps them, so that it never mixes two runs.
    [stage] = read_command_line(__doc__, "prompteol_cse")
    if not stage.begin():
        print(f"{stage.output} holds the finished run.")
        return

    # 2. The decoder with its prompt, the triplets, and an adapter.
    encoder = stage.start()
    data = stage.read(encoder)
    stage.attach(encoder)

    # 3. What it learns by: an entailed sentence against all others of the batch and against the contradictions.
    options = {
        "scale": stage.scale,
        "in_batch_negatives": stage.in_batch_negatives,
        "gather_across_devices": stage.gather_across_devices,
    }
    if stage.mini_batch_size is None:
        loss = HardNegativesRankingLoss(encoder, **options)
    else:  # the same gradients, for batches that memory does not hold
        loss = CachedHardNegativesRankingLoss(encoder, mini_batch_size=stage.mini_batch_size, **options)
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
