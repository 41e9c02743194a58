#!/usr/bin/env python3
"""Makes tests/data/edit: tiny random pipelines and what diffusers draws with them from given pictures.

Image to image, inpainting, Fill, control and Kontext, with sizes, masks, strengths, batches, true guidance and
references varied; starting noise is PyTorch's CPU generator, a seed a picture. Encoders give the mean of their
posteriors, as FLUX.1 was trained with. Also pictures that Pillow resampled, sizes of Kontext's references,
and a tiny autoencoder. Made with torch 2.15, diffusers 0.35.1, transformers 4.57.1 and Pillow 13.0.

Usage: make_edit_vectors.py [--out FOLDER]
"""

import argparse
import json
import os
import shutil

import numpy as np
import torch
from diffusers import (
    AutoencoderKL, AutoencoderTiny, FlowMatchEulerDiscreteScheduler, FluxControlInpaintPipeline,
    FluxControlPipeline, FluxFillPipeline, FluxImg2ImgPipeline, FluxInpaintPipeline, FluxKontextPipeline,
    FluxTransformer2DModel)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
TEXT_TOKENS = 8
DiagonalGaussianDistribution.sample = lambda self, generator=None: self.mode()


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


def transformer(in_channels, seed):
    return randomise(FluxTransformer2DModel(
        patch_size=1, in_channels=in_channels, out_channels=16, num_layers=1, num_single_layers=1,
        attention_head_dim=16, num_attention_heads=1, joint_attention_dim=12, pooled_projection_dim=16,
        guidance_embeds=True, axes_dims_rope=(4, 6, 6)), seed, 1.5)


class Parts:
    def __init__(self, out):
        tokens = os.path.join(HERE, "tokenizers")
        clip_folder = os.path.join(out, "tokenizer")
        os.makedirs(clip_folder)
        for name in os.listdir(os.path.join(tokens, "clip")):
            shutil.copy(os.path.join(tokens, "clip", name), clip_folder)
        path = os.path.join(clip_folder, "tokenizer_config.json")
        config = json.load(open(path))
        config["model_max_length"] = 10
        json.dump(config, open(path, "w"))
        self.tokenizer = CLIPTokenizer.from_pretrained(clip_folder)
        self.tokenizer_2 = T5Tokenizer(os.path.join(tokens, "t5", "spiece.model"), extra_ids=0, legacy=False)
        self.text_encoder = randomise(CLIPTextModel(CLIPTextConfig(
            vocab_size=len(self.tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=10, eos_token_id=self.tokenizer.eos_token_id,
            bos_token_id=self.tokenizer.bos_token_id, pad_token_id=self.tokenizer.pad_token_id)), 1)
        self.text_encoder_2 = randomise(T5EncoderModel(T5Config(
            vocab_size=len(self.tokenizer_2), d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2,
            feed_forward_proj="gated-gelu")), 2)
        self.vae = randomise(AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
            block_out_channels=[8, 8], layers_per_block=1, latent_channels=4, norm_num_groups=4,
            use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.8, shift_factor=0.1), 3)
        self.scheduler = FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, shift=3.0, base_image_seq_len=16, max_image_seq_len=128)
        self.transformers = {"plain": transformer(16, 4), "fill": transformer(48, 5), "control": transformer(32, 6)}

    def pipe(self, cls, kind):
        p = cls(scheduler=self.scheduler, vae=self.vae, text_encoder=self.text_encoder, tokenizer=self.tokenizer,
                text_encoder_2=self.text_encoder_2, tokenizer_2=self.tokenizer_2,
                transformer=self.transformers[kind])
        p.set_progress_bar_config(disable=True)
        return p

    def save(self, out):
        def half(model, folder, shard):
            model.save_pretrained(folder)
            path = os.path.join(folder, shard)
            save_file({k: v.half().contiguous() for k, v in model.state_dict().items()
                       if k != "encoder.embed_tokens.weight"}, path, {"format": "pt"})
        half(self.vae, os.path.join(out, "vae"), "diffusion_pytorch_model.safetensors")
        half(self.text_encoder, os.path.join(out, "text_encoder"), "model.safetensors")
        half(self.text_encoder_2, os.path.join(out, "text_encoder_2"), "model.safetensors")
        for kind, model in self.transformers.items():
            half(model, os.path.join(out, "transformer_" + kind), "diffusion_pytorch_model.safetensors")
        self.scheduler.save_pretrained(os.path.join(out, "scheduler"))


def picture(width, height, seed, mode="RGB"):
    """Waves and blocks: neither flat nor noise."""
    r = np.random.RandomState(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [127.5 + 120 * np.sin(x * r.uniform(0.1, 1.2) + y * r.uniform(-1, 1) + r.uniform(0, 6)) for _ in range(4)]
    a = np.stack(planes, -1)
    a[height // 3:height // 2, width // 4:width // 2, :3] = r.randint(0, 256, 3)
    a = a.clip(0, 255).astype(np.uint8)
    if mode == "L":
        return Image.fromarray(a[..., 0])
    if mode == "1":
        return Image.fromarray(a[..., 0]).point(lambda v: 255 if v > 120 else 0).convert("1")
    if mode == "P":
        return Image.fromarray(a[..., :3]).quantize(7)
    return Image.fromarray(a if mode == "RGBA" else a[..., :3], mode)


class Writer:
    def __init__(self, out, parts):
        self.out, self.parts, self.cases, self.files = out, parts, [], {}

    def file(self, image):
        key = (image.mode, image.size, image.tobytes())
        if key not in self.files:
            self.files[key] = f"in{len(self.files)}.png"
            image.save(os.path.join(self.out, self.files[key]), optimize=True)
        return self.files[key]

    def case(self, name, cls, kind, seed=7, batch=1, prompt="a photo of a cat", negative=None, cfg=1.0, steps=3,
             guidance=3.5, width=24, height=16, strength=None, init=None, mask=None, control=None, ref=None,
             **more):
        pipe = self.parts.pipe(cls, kind)
        row = dict(name=name, pipeline=cls.__name__, transformer=kind, seed=seed, batch=batch, prompt=prompt,
                   steps=steps, guidance=guidance, width=width, height=height)
        named = dict(prompt=prompt, width=width, height=height, num_inference_steps=steps, guidance_scale=guidance,
                     num_images_per_prompt=batch, max_sequence_length=TEXT_TOKENS,
                     generator=[torch.Generator().manual_seed(seed + i) for i in range(batch)])
        if cfg != 1:
            named.update(negative_prompt=negative, true_cfg_scale=cfg)
            row.update(negative=negative, cfg=cfg)
        if strength is not None:
            named["strength"], row["strength"] = strength, strength
        for key, image in [("init", init), ("mask", mask), ("control", control), ("ref", ref)]:
            if image is None:
                continue
            row[key] = self.file(image)
            named[{"init": "image", "mask": "mask_image", "control": "control_image", "ref": "image"}[key]] = image
        if cls is FluxKontextPipeline:
            named.update(max_area=more.pop("max_area", width * height), _auto_resize=False)
            row["max_area"] = named["max_area"]
        assert not more
        images = pipe(**named).images
        row["images"] = []
        for i, image in enumerate(images):
            row["images"].append(f"{name}-{i}.png")
            image.save(os.path.join(self.out, row["images"][-1]), optimize=True)
        spread = np.asarray(images[0]).std()
        print(f"{name}: {images[0].size}, spread {spread:.1f}")
        assert spread > 8
        self.cases.append(row)

    def several_references(self, name, refs, counted, seed=9, width=24, height=16, steps=3, guidance=2.5):
        """By hand: diffusers takes a list of references as one for each picture."""
        pipe = self.parts.pipe(FluxKontextPipeline, "plain")
        embeds, pooled, text_ids = pipe.encode_prompt("a red dog", None, max_sequence_length=TEXT_TOKENS)
        f, unit = pipe.vae_scale_factor, 2 * pipe.vae_scale_factor
        tokens, ids, high, wide = [], [pipe._prepare_latent_image_ids(1, height // unit, width // unit, "cpu",
                                                                       torch.float32)], 0, 0
        for k, image in enumerate(refs):
            w, h = image.width // unit * unit, image.height // unit * unit
            x = pipe.image_processor.preprocess(pipe.image_processor.resize(image, h, w), h, w)
            z = pipe._encode_vae_image(x, None)
            rows, columns = z.shape[2:]
            tokens.append(pipe._pack_latents(z, 1, 4, rows, columns))
            at = pipe._prepare_latent_image_ids(1, rows // 2, columns // 2, "cpu", torch.float32)
            at[:, 0] = k + 1 if counted else 1
            if not counted:
                down, right = (0, wide) if rows + high > columns + wide else (high, 0)
                at[:, 1] += down // 2
                at[:, 2] += right // 2
                high, wide = max(high, rows + down), max(wide, columns + right)
            ids.append(at)
        noise = torch.randn((1, 4, height // f, width // f), generator=torch.Generator().manual_seed(seed))
        x = pipe._pack_latents(noise, 1, 4, height // f, width // f)
        from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift
        c = pipe.scheduler.config
        mu = calculate_shift(x.shape[1], c.base_image_seq_len, c.max_image_seq_len, c.base_shift, c.max_shift)
        pipe.scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=mu)
        pipe.scheduler.set_begin_index(0)
        with torch.no_grad():
            for t in pipe.scheduler.timesteps:
                v = pipe.transformer(
                    hidden_states=torch.cat([x, *tokens], 1), timestep=t[None] / 1000,
                    guidance=torch.tensor([guidance]), pooled_projections=pooled, encoder_hidden_states=embeds,
                    txt_ids=text_ids, img_ids=torch.cat(ids), return_dict=False)[0][:, :x.shape[1]]
                x = pipe.scheduler.step(v, t, x, return_dict=False)[0]
            z = pipe._unpack_latents(x, height, width, f)
            y = pipe.vae.decode(z / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor)[0]
        image = pipe.image_processor.postprocess(y)[0]
        image.save(os.path.join(self.out, f"{name}-0.png"), optimize=True)
        self.cases.append(dict(name=name, pipeline="FluxKontextPipeline", transformer="plain", seed=seed, batch=1,
                               prompt="a red dog", steps=steps, guidance=guidance, width=width, height=height,
                               ref=[self.file(r) for r in refs], counted=counted, images=[f"{name}-0.png"]))


def draw(w):
    inpaint, img2img = FluxInpaintPipeline, FluxImg2ImgPipeline
    w.case("img2img", img2img, "plain", init=picture(24, 16, 1), strength=0.6)
    w.case("img2img-other-shape", img2img, "plain", init=picture(37, 50, 2), strength=0.4, steps=5, width=16, height=28)
    w.case("img2img-cfg", img2img, "plain", init=picture(10, 9, 3), strength=0.9, cfg=2.5, negative="a dog", batch=2)
    w.case("inpaint", inpaint, "plain", init=picture(24, 16, 1), mask=picture(24, 16, 11, "L"), strength=1.0)
    w.case("inpaint-soft-other-size", inpaint, "plain", init=picture(31, 21, 4), mask=picture(50, 13, 12, "L"),
           strength=0.6, steps=4, width=20, height=24)
    w.case("inpaint-one-bit", inpaint, "plain", init=picture(24, 16, 1), mask=picture(37, 29, 13, "1"), strength=0.8)
    w.case("inpaint-palette", inpaint, "plain", init=picture(24, 16, 1), mask=picture(17, 33, 14, "P"), strength=0.8)
    w.case("inpaint-rgba", inpaint, "plain", init=picture(24, 16, 1), mask=picture(40, 40, 15, "RGBA"), strength=0.3,
           steps=4)
    w.case("inpaint-batch-cfg", inpaint, "plain", init=picture(19, 16, 5), mask=picture(30, 30, 16), strength=0.7,
           batch=2, cfg=3.0, negative="blue", width=16, height=16)
    fill = FluxFillPipeline
    w.case("fill", fill, "fill", init=picture(24, 16, 1), mask=picture(24, 16, 11, "L"), guidance=30.0)
    w.case("fill-other-size", fill, "fill", init=picture(40, 23, 6), mask=picture(11, 50, 17, "L"), guidance=10.0,
           width=16, height=28, steps=4, batch=2)
    w.case("fill-strength", fill, "fill", init=picture(24, 16, 1), mask=picture(48, 32, 13, "1"), strength=0.7, steps=4)
    control = FluxControlPipeline
    w.case("control", control, "control", control=picture(24, 16, 1), guidance=30.0)
    w.case("control-other-size", control, "control", control=picture(50, 50, 7), batch=2, width=28, height=12)
    w.case("control-inpaint", FluxControlInpaintPipeline, "control", control=picture(24, 16, 8), init=picture(24, 16, 1),
           mask=picture(24, 16, 11, "L"), strength=0.7)
    kontext = FluxKontextPipeline
    w.case("kontext", kontext, "plain", ref=picture(24, 16, 1), guidance=2.5)
    w.case("kontext-other-size", kontext, "plain", ref=picture(19, 30, 9), width=28, height=12, batch=2)
    w.case("kontext-cfg", kontext, "plain", ref=picture(16, 16, 10), width=16, height=16, cfg=2.0, negative="a dog")
    w.case("kontext-area", kontext, "plain", ref=picture(16, 20, 10), width=30, height=16, max_area=300)
    w.case("kontext-no-reference", kontext, "plain")
    w.several_references("kontext-two", [picture(16, 24, 1), picture(24, 8, 2)], False)
    w.several_references("kontext-three", [picture(20, 12, 3), picture(12, 20, 4), picture(9, 9, 5)], False)
    w.several_references("kontext-counted", [picture(16, 12, 6), picture(16, 16, 7)], True)


def resampled(out):
    filters = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS, "nearest": Image.NEAREST}
    r = np.random.RandomState(1)
    rows = []
    for i, (w, h, tw, th) in enumerate([(7, 5, 19, 11), (30, 21, 7, 5), (23, 6, 6, 23), (11, 12, 11, 5), (8, 8, 3, 8),
                                        (64, 3, 1, 1)]):
        for mode in ["RGB", "RGBA"]:
            image = Image.fromarray(r.randint(0, 256, (h, w, len(mode)), dtype=np.uint8), mode)
            rows.append(dict(width=w, height=h, channels=len(mode), to=[tw, th],
                             input=np.asarray(image).tobytes().hex(),
                             grey=np.asarray(image.convert("L")).tobytes().hex(),
                             outputs={name: np.asarray(image.resize((tw, th), f)).tobytes().hex()
                                      for name, f in filters.items()}))
    sizes = []
    for w, h in [(1000, 1000), (640, 480), (480, 640), (1920, 1080), (300, 2000), (4000, 100), (777, 913), (1024, 1018)]:
        for unit in [16, 32]:
            ow, oh = w // unit * unit, h // unit * unit
            aspect = ow / oh
            _, rw, rh = min((abs(aspect - a / b), a, b) for a, b in PREFERRED_KONTEXT_RESOLUTIONS)
            area_w, area_h = round((1024**2 * (w / h)) ** 0.5), round((1024**2 / (w / h)) ** 0.5)
            sizes.append([w, h, unit, rw // unit * unit, rh // unit * unit, area_w // unit * unit,
                          area_h // unit * unit])
    json.dump({"resampled": rows, "sizes": sizes}, open(os.path.join(out, "resampled.json"), "w"))


def tiny(out):
    torch.manual_seed(11)
    model = AutoencoderTiny(latent_channels=4, encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
                            num_encoder_blocks=(1, 2), num_decoder_blocks=(2, 1))
    randomise(model, 12, 1.2)
    folder = os.path.join(out, "taesd")
    model.save_pretrained(folder)
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()},
              os.path.join(folder, "diffusion_pytorch_model.safetensors"), {"format": "pt"})
    g = torch.Generator().manual_seed(13)
    z = 1.5 * torch.randn((2, 4, 6, 5), generator=g)
    x = 2 * torch.rand((1, 3, 8, 12), generator=g) - 1
    with torch.no_grad():
        save_file({"z": z, "decoded": model.decode(z).sample, "x": x, "encoded": model.encode(x).latents},
                  os.path.join(folder, "vectors.safetensors"))


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--out", default=os.path.join(HERE, "edit"))
    out = a.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    parts = Parts(out)
    parts.save(out)
    w = Writer(out, parts)
    draw(w)
    json.dump({"text_tokens": TEXT_TOKENS, "cases": w.cases}, open(os.path.join(out, "cases.json"), "w"), indent=0)
    resampled(out)
    tiny(out)


if __name__ == "__main__":
    main()
