// Base64, as tokenizer files hold bytes.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace vkflux {

/// Up to the first "="; nothing where a character is none of the alphabet.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace vkflux
