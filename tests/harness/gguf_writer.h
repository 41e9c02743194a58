// Small GGUF files for tests.
#pragma once

#include <functional>
#include <string>

#include "model/io/tensor_source.h"

namespace vkflux::test {

/// All tensors of `from` in F32, each under the name that `rename` gives it, as a GGUF file's bytes; a name
/// that comes again is left out.
std::string gguf_of(const io::TensorSource& from,
                    const std::function<std::string(const std::string&)>& rename);

}  // namespace vkflux::test
