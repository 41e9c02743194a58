// Flat JSON objects as a table.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace vkflux {

/// RFC 4180 with a head line: the keys of all rows in the order in which they first appear; what a row lacks,
/// and null, is empty. Lines end with a plain line feed.
std::string csv_table(const std::vector<nlohmann::ordered_json>& rows);

}  // namespace vkflux
