// What of a model stays on the device between its uses. What doesn't is loaded for every use.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/io/names.h"
#include "model/weight_storage.h"

namespace vkflux {

enum class PartUse { per_prompt, per_picture, per_step };  // from seldom to often

struct ModelPart {
  std::string name;
  uint64_t bytes = 0;  // on the device, see device_bytes()
  PartUse use = PartUse::per_step;
};

/// For each part whether it stays. Half of `usable` bytes is for weights, the rest for activations: a part
/// stays when those that stay and the largest that doesn't have room there together. Parts that are used more
/// often go first, then those that come first. `forced`: all of them, or none, whatever their size.
std::vector<bool> parts_that_stay(std::span<const ModelPart> parts, uint64_t usable,
                                  std::optional<bool> forced = {});

/// Bytes that the device's memory pool may take: its budget, or all of the device's memory.
uint64_t usable_bytes(Device& device);

/// Bytes of the weights that load() would make of these tensors.
uint64_t device_bytes(const io::NamedTensors& file, WantedType matrices, const StorageRules& rules = {});

}  // namespace vkflux
