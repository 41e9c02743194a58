// Small GGUF files for tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#include "model/io/tensor_source.h"

namespace vkflux::test {

/// The bytes of a number, and a text with its length in front, as GGUF files hold them.
template <class T>
std::string gguf_raw(T v) {
  std::string out(sizeof(T), '\0');
  std::memcpy(out.data(), &v, sizeof(T));
  return out;
}
inline std::string gguf_text(const std::string& s) {
  return gguf_raw(uint64_t{s.size()}) + s;
}

/// All tensors of `from` in F32, each under the name that `rename` gives it, as a GGUF file's bytes; a name
/// that comes again is left out.
std::string gguf_of(const io::TensorSource& from,
                    const std::function<std::string(const std::string&)>& rename);

}  // namespace vkflux::test
