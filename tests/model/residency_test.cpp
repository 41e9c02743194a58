// What stays on the device between its uses, and how many bytes a part of a model takes there.
#include "model/residency.h"

#include <gtest/gtest.h>

#include "model/flux/transformer.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"

namespace vkflux {
namespace {

using Stays = std::vector<bool>;

// Text encoders of 2 and 9, transformer of 12, autoencoder of 1.
std::vector<ModelPart> flux() {
  return {{"clip", 2, PartUse::per_prompt},
          {"t5", 9, PartUse::per_prompt},
          {"transformer", 12, PartUse::per_step},
          {"autoencoder", 1, PartUse::per_picture}};
}

TEST(Residency, EverythingStaysWhereItFitsHalf) {
  EXPECT_EQ(parts_that_stay(flux(), 48), (Stays{true, true, true, true}));
  EXPECT_EQ(parts_that_stay({}, 48), Stays{});
}

TEST(Residency, WhatIsUsedMostOftenStaysFirst) {
  // The room is needed for the largest that doesn't stay: 12 + 1 + 9 is 22, CLIP makes it 24.
  EXPECT_EQ(parts_that_stay(flux(), 47), (Stays{false, false, true, true}));
  EXPECT_EQ(parts_that_stay(flux(), 44), (Stays{false, false, true, true}));
  EXPECT_EQ(parts_that_stay(flux(), 42), (Stays{false, false, true, false}));
}

TEST(Residency, WithoutTheTransformerOthersMayStay) {
  EXPECT_EQ(parts_that_stay(flux(), 40), (Stays{true, false, false, true}));  // 1 + 2 + 12 of 20
  EXPECT_EQ(parts_that_stay(flux(), 26), (Stays{false, false, false, true}));
  EXPECT_EQ(parts_that_stay(flux(), 24), (Stays{false, false, false, false}));
}

TEST(Residency, ARequestForcesAllOrNone) {
  EXPECT_EQ(parts_that_stay(flux(), 1, true), Stays(4, true));
  EXPECT_EQ(parts_that_stay(flux(), 1000, false), Stays(4, false));
}

TEST(Residency, TheDeviceHasItsBudget) {
  Device& device = test::device();
  EXPECT_EQ(device.pool().usage().budget, 0u);
  EXPECT_EQ(usable_bytes(device), device.caps().device_memory);
  device.pool().set_budget(1 << 20);
  EXPECT_EQ(usable_bytes(device), 1u << 20);
  device.pool().set_budget(0);
}

TEST(Residency, CountsTheBytesThatLoadingTakes) {
  Flux1Config config;
  config.in_channels = config.out_channels = 16;
  config.vec_in_dim = 24;
  config.context_in_dim = 40;
  config.hidden = 256;
  config.heads = 4;
  config.head_dim = 64;
  config.axes_dim = default_rope_axes(64);
  config.mlp_hidden = 320;
  config.depth = config.depth_single = 1;
  Flux1 model(config);
  const std::vector<Param> params = parameters(model);
  allocate(params, test::device());
  const test::TempFolder folder;
  save(params, folder.file("x.safetensors"), io::flux1_names(), io::FileDType::bf16, flux1_row_split(config));
  const auto file = io::open_tensors(folder.file("x.safetensors"));
  const io::NamedTensors named(*file, io::flux1_names());
  for (const DType t : {DType::f32, DType::bf16, DType::f8_e4m3, DType::q8_0, DType::q4_k}) {
    load(params, named, test::device(), t, flux1_storage());
    uint64_t bytes = 0;
    for (const Param& p : params) bytes += p.tensor->bytes();
    EXPECT_EQ(device_bytes(named, t, flux1_storage()), bytes) << name(t);
  }
}

}  // namespace
}  // namespace vkflux
