#include "tests/harness/loaders.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <stdexcept>

namespace vkflux::test {

void repair_safetensors(std::string& bytes) {
  size_t end = bytes.rfind("}}");  // one brace alone may be a value of a tensor
  if (end == std::string::npos) end = bytes.rfind('}');
  end = end == std::string::npos ? end : bytes.find_first_not_of("} ", end);  // the header may be padded
  end = std::min(end, bytes.size());
  if (end <= 8) return;
  const uint64_t n = end - 8;
  std::memcpy(bytes.data(), &n, 8);
}

const std::vector<LoaderCase>& loader_cases() {
  static const std::vector<LoaderCase> cases = [] {
    std::vector<LoaderCase> all;
    for (const auto& part : {io_loaders, tokenizer_loaders, model_loaders, lora_loaders, train_loaders}) {
      std::vector<LoaderCase> some = part();
      all.insert(all.end(), std::make_move_iterator(some.begin()), std::make_move_iterator(some.end()));
    }
    return all;
  }();
  return cases;
}

const LoaderCase& loader_case(const std::string& name) {
  for (const LoaderCase& c : loader_cases()) {
    if (c.name == name) return c;
  }
  throw std::logic_error("no loader is called " + name);
}

}  // namespace vkflux::test
