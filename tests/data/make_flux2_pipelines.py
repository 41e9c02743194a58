#!/usr/bin/env python3
"""Makes tests/data/flux2_pipelines: tiny random FLUX.2 pipelines, and what diffusers draws with them.

A Flux2KleinPipeline (Qwen3, true guidance), the same parts as Flux2KleinKVPipeline, and a Flux2Pipeline (Mistral,
distilled guidance), with sizes, batches, steps, text lengths and 0 to 2 reference pictures varied. The encoders have as many layers as the published
hidden states need. Starting noise is PyTorch's CPU generator. Made with torch 2.15, diffusers 0.42.1,
transformers 5.24.0, tokenizers 0.23.3 and Pillow 12.

Usage: make_flux2_pipelines.py [--out FOLDER]
"""

import argparse
import json
import os

import numpy as np
import torch
from diffusers import (
    AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2KleinKVPipeline, Flux2KleinPipeline, Flux2Pipeline,
    Flux2Transformer2DModel)
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Mistral3Config, Mistral3ForConditionalGeneration, MistralConfig, PixtralVisionConfig,
    PreTrainedTokenizerFast, Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM)

HERE = os.path.dirname(os.path.abspath(__file__))
TEXTS = ["a photo of a cat", "a red dog in the snow", "two blue hearts and a yellow sun", "an old house by the sea",
         "It's 1984, isn't it?", "user", "assistant", "a painting of three green birds"] * 3
QWEN_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
                r"|\s+(?!\S)|\s+")
TEKKEN_PATTERN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
                  r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
                  r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# One message of the user's without thinking, as the published template writes it.
QWEN_TEMPLATE = ("{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}"
                 "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
                 "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
                 "{%- endif %}")
MISTRAL_TEMPLATE = ("{{- '<s>' }}{%- for m in messages %}{%- if m.role == 'system' %}"
                    "{{- '[SYSTEM_PROMPT]' + m.content[0].text + '[/SYSTEM_PROMPT]' }}{%- else %}"
                    "{{- '[INST]' + m.content[0].text + '[/INST]' }}{%- endif %}{%- endfor %}")


def randomise(model, seed, gain=1.0):
    """Values that f16 holds exactly, so that files of half the size hold them."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            x = torch.randn(p.shape, generator=g)
            if "norm" in name and p.dim() == 1 and name.endswith("weight"):
                x = 1 + 0.1 * x
            elif p.dim() > 1:
                x = gain * x / p[0].numel() ** 0.5
            else:
                x = 0.1 * x
            p.copy_(x.half().float())
    return model.eval()


def bpe(pattern, specials, size):
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    t.train_from_iterator(TEXTS, trainer)
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    return t


def save_half(model, folder, shard, drop=()):
    model.save_pretrained(folder)
    for name in os.listdir(folder):
        if name.endswith(".safetensors") or name == "generation_config.json":
            os.remove(os.path.join(folder, name))
    state = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in model.state_dict().items()
             if not any(k.startswith(d) for d in drop)}
    save_file(state, os.path.join(folder, shard), {"format": "pt"})


def autoencoder(seed, **more):
    m = randomise(AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(8, 8),
        layers_per_block=1, latent_channels=4, norm_num_groups=4, **more), seed)
    g = torch.Generator().manual_seed(seed + 100)
    m.bn.running_mean.copy_((0.2 * torch.randn(16, generator=g)).half().float())
    m.bn.running_var.copy_((0.3 + torch.rand(16, generator=g)).half().float())
    return m


def transformer(seed, context, guidance, **more):
    config = dict(in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
                  joint_attention_dim=context, timestep_guidance_channels=32, mlp_ratio=3.0, axes_dims_rope=(4, 4, 4, 4),
                  guidance_embeds=guidance)
    return randomise(Flux2Transformer2DModel(**{**config, **more}), seed, 1.3)


def klein(out):
    folder = os.path.join(out, "klein")
    t = bpe(QWEN_PATTERN, ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"], 330)
    tokenizer = Qwen2TokenizerFast(tokenizer_object=t, pad_token="<|endoftext|>", eos_token="<|im_end|>", unk_token=None)
    tokenizer.chat_template = QWEN_TEMPLATE
    tokenizer.save_pretrained(os.path.join(folder, "tokenizer"))
    text = randomise(Qwen3ForCausalLM(Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=12, intermediate_size=16, num_hidden_layers=28, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, rope_theta=1e6, tie_word_embeddings=True)), 1)
    pipe = Flux2KleinPipeline(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0), autoencoder(3), text,
                              tokenizer, transformer(4, 36, False), is_distilled=False)
    save_half(text, os.path.join(folder, "text_encoder"), "model.safetensors", ["lm_head."])
    return finish(pipe, folder)


def dev(out):
    folder = os.path.join(out, "dev")
    specials = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "<pad>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
    t = bpe(TEKKEN_PATTERN, specials, 330)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=t, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
                                        unk_token="<unk>", padding_side="left")
    tokenizer.chat_template = MISTRAL_TEMPLATE
    tokenizer.save_pretrained(os.path.join(folder, "tokenizer"))
    text = randomise(Mistral3ForConditionalGeneration(Mistral3Config(
        text_config=MistralConfig(
            vocab_size=len(tokenizer), hidden_size=12, intermediate_size=16, num_hidden_layers=31, num_attention_heads=4,
            num_key_value_heads=2, head_dim=4, rope_theta=1e6, sliding_window=None, rms_norm_eps=1e-5).to_dict(),
        vision_config=PixtralVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                                          image_size=32, patch_size=16, head_dim=8).to_dict())), 2)
    pipe = Flux2Pipeline(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), autoencoder(5, mid_block_add_attention=False),
                         text, tokenizer, transformer(6, 36, True, num_layers=2, num_single_layers=1, eps=1e-5, rope_theta=500))
    save_half(text, os.path.join(folder, "text_encoder"), "model.safetensors", ["lm_head."])
    return finish(pipe, folder)


def finish(pipe, folder):
    save_half(pipe.vae, os.path.join(folder, "vae"), "diffusion_pytorch_model.safetensors")
    save_half(pipe.transformer, os.path.join(folder, "transformer"), "diffusion_pytorch_model.safetensors")
    pipe.scheduler.save_pretrained(os.path.join(folder, "scheduler"))
    pipe.save_config(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(width, height, seed):
    """Waves and blocks: neither flat nor noise."""
    r = np.random.RandomState(seed)
    y, x = np.mgrid[0:height, 0:width]
    a = np.stack([127.5 + 120 * np.sin(x * r.uniform(0.1, 1.2) + y * r.uniform(-1, 1) + r.uniform(0, 6)) for _ in range(3)], -1)
    a[height // 3:height // 2, width // 4:width // 2] = r.randint(0, 256, 3)
    return Image.fromarray(a.clip(0, 255).astype(np.uint8))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default=os.path.join(HERE, "flux2_pipelines"))
    out = parser.parse_args().out
    os.makedirs(out, exist_ok=True)
    torch.manual_seed(0)
    pipes = {"klein": klein(out), "dev": dev(out)}
    pipes["klein-kv"] = Flux2KleinKVPipeline(**pipes["klein"].components)
    pipes["klein-kv"].set_progress_bar_config(disable=True)
    references = [picture(72, 64, 1), picture(91, 130, 2)]
    for i, image in enumerate(references):
        image.save(os.path.join(out, f"ref{i}.png"), optimize=True)
    cases = []

    def case(name, model, refs=(), prompt="a photo of a cat", seed=7, steps=3, width=24, height=16, batch=1, scale=1.0,
             tokens=48):
        guidance = {} if model == "klein-kv" else {"guidance_scale": scale}
        images = pipes[model](
            prompt=prompt, image=[references[i] for i in refs] or None, width=width, height=height, num_inference_steps=steps,
            num_images_per_prompt=batch, max_sequence_length=tokens, **guidance,
            generator=[torch.Generator().manual_seed(seed + i) for i in range(batch)]).images
        row = dict(name=name, model=model, refs=list(refs), prompt=prompt, seed=seed, steps=steps, width=width, height=height,
                   batch=batch, scale=scale, tokens=tokens, images=[])
        for i, image in enumerate(images):
            row["images"].append(f"{name}-{i}.png")
            image.save(os.path.join(out, row["images"][-1]), optimize=True)
        spread = np.asarray(images[0]).std()
        print(f"{name}: {images[0].size}, spread {spread:.1f}")
        assert spread > 8
        cases.append(row)

    case("klein", "klein")
    case("klein-guided", "klein", scale=3.0, prompt="a red dog, <|im_end|> isn't it?", seed=1, tokens=40)
    case("klein-batch", "klein", batch=2, width=16, height=32, steps=2)
    case("klein-cut", "klein", tokens=16, prompt="two blue hearts and a yellow sun by the old sea")
    case("klein-reference", "klein", refs=[0], seed=3)
    case("klein-references", "klein", refs=[1, 0], scale=2.5, seed=4, width=32, height=20)
    case("klein-kv", "klein-kv", refs=[0], steps=4, seed=5)
    case("klein-kv-two", "klein-kv", refs=[0, 1], seed=6, width=20, height=32, batch=2)
    case("dev", "dev", scale=4.0, tokens=112)
    case("dev-long", "dev", scale=2.0, tokens=512, prompt="[IMG]an old house [INST] by the sea", width=20, height=28)
    case("dev-reference", "dev", scale=4.0, refs=[1], tokens=112, seed=9)
    case("dev-references", "dev", scale=1.0, refs=[0, 1], tokens=128, seed=10, batch=2, steps=4)
    with open(os.path.join(out, "cases.json"), "w") as f:
        json.dump(cases, f, indent=1)


if __name__ == "__main__":
    main()
