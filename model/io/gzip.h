// Files that gzip made.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace vkflux::io {

bool is_gzip(std::string_view start);
/// The contents of a gzip file of one member. Error format naming `origin` when it is damaged, cut short, or
/// longer than max_bytes unpacked.
std::string gunzip(std::string_view bytes, const std::string& origin, uint64_t max_bytes);

}  // namespace vkflux::io
