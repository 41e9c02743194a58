// Which matrices of a model may be packed, and which stay in high precision.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/io/tensor_source.h"
#include "model/module.h"

namespace vkflux {

/// A model's exceptions from packed types: a matrix whose name contains one of these texts. Every model has
/// its own beside it, such as flux1_storage().
struct StorageRules {
  std::vector<std::string> precise;  // 16-bit: bf16 when the file has them so, else f16
  std::vector<std::string> q8_0;
  std::vector<std::string> tables;  // read by rows, which nothing decodes: never packed
};

/// The type that the matrices of a model are wanted in; none: every one as its file has it.
using WantedType = std::optional<DType>;

/// How a parameter is kept on the device. Everything but matrices is f32. Without `wanted` a matrix stays
/// what it is in the file (f64 becomes f32; tables that are packed there, and rows that aren't whole blocks,
/// f16). f32, f16 and bf16 are what every matrix becomes. Packed types have the exceptions of `rules`; and
/// rows that are no multiple of the type's block are q8_0 where that fits them, else 16-bit.
DType storage_of(const StorageRules& rules, const Param& p, WantedType wanted, io::FileDType stored);

/// One sentence on the matrices of `params` that the packed type `wanted` doesn't hold because of their rows'
/// length; "" when there are none.
std::string misfits(const StorageRules& rules, const std::vector<Param>& params, WantedType wanted);

}  // namespace vkflux
