// Encoded prompts on disk: the same bits without the encoders, a bounded folder, and nothing that lies there
// does harm.
#include "model/prompt_cache.h"

#include <gtest/gtest.h>

#include <cmath>

#include <filesystem>
#include <fstream>

#include "autograd/ops.h"
#include "model/io/file.h"
#include "model/io/safetensors.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"

namespace vkflux {
namespace {

using test::device;

const PromptCache::Shapes kShapes{{"txt", {1, 4, 8}}, {"y", {1, 8}}};

struct Encoder {
  int calls = 0;
  Condition operator()() {
    ++calls;
    return {{"txt", op::normal(device(), {1, 4, 8}, 1, 0)}, {"y", op::normal(device(), {1, 8}, 1, 1)}};
  }
};

std::vector<float> txt(const Condition& c) {
  return c["txt"].to_host();
}

TEST(PromptCache, TheSecondTimeNothingIsEncoded) {
  const test::TempFolder folder;
  const PromptCache cache(folder.file("prompts"));
  Encoder encoder;
  const auto get = [&](const std::string& key) {
    return cache.get(device(), key, kShapes, std::ref(encoder));
  };
  const std::vector<float> first = txt(get("a"));
  EXPECT_EQ(txt(get("a")), first);
  EXPECT_EQ(encoder.calls, 1);
  get("b");
  EXPECT_EQ(encoder.calls, 2);
}

TEST(PromptCache, WhatIsNoEntryIsMadeAnew) {
  const test::TempFolder folder;
  const std::string place = folder.file("prompts");
  const PromptCache cache(place);
  Encoder encoder;
  const auto get = [&] { return cache.get(device(), "a", kShapes, std::ref(encoder)); };
  const std::vector<float> right = txt(get());
  const std::string path = io::folder_entries(place).at(0), good = io::read_file(path);
  const std::map<std::string, std::string> key = io::SafetensorsFile(path).metadata();
  const std::vector<float> nan(32, NAN), ones(32, 1);
  const auto with = [&](const std::string& name, std::vector<int64_t> shape,
                        const std::vector<float>& values) {
    return std::vector{io::tensor_data(name, std::move(shape), values),
                       io::tensor_data("y", {1, 8}, std::vector<float>(8, 1))};
  };
  const std::vector<std::function<void()>> spoil{
      [&] { io::atomic_write(path, good.substr(0, good.size() / 2)); },
      [&] { io::atomic_write(path, ""); },
      [&] { io::atomic_write(path, std::string(100, '\xff')); },
      [&] {
        io::write_safetensors(path, with("txt", {1, 4, 8}, ones));
      },
      [&] {
        io::write_safetensors(path, with("txt", {1, 4, 8}, ones), {{"key", "another"}});
      },
      [&] {
        io::write_safetensors(path, with("txt", {1, 4, 8}, nan), key);
      },
      [&] {
        io::write_safetensors(path, with("txt", {1, 8, 4}, ones), key);
      },
      [&] {
        io::write_safetensors(path, with("text", {1, 4, 8}, ones), key);
      },
      [&] {
        std::filesystem::remove(path);
        std::filesystem::create_directories(path);
      },
  };
  for (size_t i = 0; i < spoil.size(); ++i) {
    spoil[i]();
    const int calls = encoder.calls;
    EXPECT_EQ(txt(get()), right) << i;
    EXPECT_EQ(encoder.calls, calls + 1) << i;
  }
}

TEST(PromptCache, OldEntriesGoAndAPlaceThatCannotBeIsNoError) {
  const test::TempFolder folder;
  const std::string place = folder.file("prompts");
  Encoder encoder;
  const PromptCache small(place, 1000);
  for (const char* key : {"a", "b", "c", "d", "e"}) small.get(device(), key, kShapes, std::ref(encoder));
  uint64_t bytes = 0;
  for (const std::string& file : io::folder_entries(place)) bytes += std::filesystem::file_size(file);
  EXPECT_LE(bytes, 1000u);
  EXPECT_GT(bytes, 0u);
  std::ofstream(folder.file("file")) << "x";
  const PromptCache nowhere(folder.file("file") + "/prompts");
  EXPECT_EQ(txt(nowhere.get(device(), "a", kShapes, std::ref(encoder))).size(), 32u);
}

}  // namespace
}  // namespace vkflux
