// SHA-256 of files, by which people know them.
#pragma once

#include <string>

namespace vkflux::io {

/// 64 hexadecimal digits. Read in pieces; Error io, or cancelled when the process is asked to stop.
std::string sha256_of_file(const std::string& path);

}  // namespace vkflux::io
