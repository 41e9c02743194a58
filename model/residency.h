// What of a model stays on the device between its uses. What doesn't is loaded for every use.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/io/names.h"
#include "model/vae/tiling.h"
#include "model/weight_storage.h"

namespace vkflux {

enum class PartUse { per_prompt, per_picture, per_step };  // from seldom to often

struct ModelPart {
  std::string name;
  uint64_t bytes = 0;  // on the device, see device_bytes()
  PartUse use = PartUse::per_step;
  std::vector<std::string> layers = {};  // prefixes of its layers in the order of their use, which can stream
};

/// How a part is held.
struct PartResidency {
  bool stays = false;         // between its uses
  std::vector<bool> streams;  // by layer: its weights pass through slots (model/weight_stream.h); empty: none
  int64_t streamed() const { return std::count(streams.begin(), streams.end(), true); }
  bool operator==(const PartResidency&) const = default;
};

/// What is held of a model, by its parts' names, and how its codec works.
struct Residency {
  std::map<std::string, PartResidency> parts;
  Tiling tiling;
  bool operator==(const Residency&) const = default;
};

/// `count` of `layers`, evenly apart.
std::vector<bool> spread(size_t layers, size_t count);

/// For each part whether it stays. Half of `usable` bytes is for weights, the rest for activations: a part
/// stays when those that stay and the largest that doesn't have room there together. Parts that are used more
/// often go first, then those that come first. `forced`: all of them, or none, whatever their size.
std::vector<bool> parts_that_stay(std::span<const ModelPart> parts, uint64_t usable,
                                  std::optional<bool> forced = {});

/// Bytes that the device's memory pool may take: its budget, of a GPU no more than other programs leave;
/// without one what they leave. Of a CPU the budget alone counts, since drivers tell little of the host's
/// memory.
uint64_t usable_bytes(Device& device);

/// Bytes of the weights that load() would make of these tensors.
uint64_t device_bytes(const io::NamedTensors& file, WantedType matrices, const StorageRules& rules = {});

}  // namespace vkflux
