// Decoding of the quantised blocks of GGUF files on the host, with the operations of ggml's reference in
// their order: the values are those of its Python package, bit for bit.
#pragma once

#include <cstddef>
#include <span>

#include "model/io/tensor_source.h"

namespace vkflux::io {

/// `blocks` holds out.size() / block_values(type) blocks; out.size() is a multiple of it.
void decode_blocks(FileDType type, std::span<const std::byte> blocks, std::span<float> out);

}  // namespace vkflux::io
