// The keys of LoRA files: a module's name and what a tensor is to it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace vkflux::lora {

enum class Role {
  down,       // A [r, in]
  up,         // B [out, r]
  up_bias,    // [out]
  core,       // between A and B, of convolutions
  alpha,      // one number
  magnitude,  // of DoRA
  w1_a,       // the factors of LoHa (a Hadamard product) and LoKr (a Kronecker product)
  w1_b,
  w2_a,
  w2_b,
  t1,
  t2,
  k1,
  k1_a,
  k1_b,
  k2,
  k2_a,
  k2_b,
  kt2,
  diff,       // what is added to the whole weight
  diff_bias,  // and to the bias
  value,      // what replaces a norm's scales
  foreign,    // of a method that isn't read
};

struct Key {
  std::string module;  // "lora_unet_double_blocks_0_img_mlp_0"
  Role role = Role::value;
  std::string_view suffix;
};

/// Nothing for a name that has none of the endings that adapters have.
std::optional<Key> split_key(const std::string& tensor);

/// Whose habit a module's name in a file is: "kohya", "diffusers", ...
std::string_view dialect_of(const Key& key);

}  // namespace vkflux::lora
