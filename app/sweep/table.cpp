#include "app/sweep/table.h"
#include "model/io/json.h"

#include <algorithm>

namespace vkflux {
namespace {

std::string field(const nlohmann::ordered_json& value) {
  if (value.is_null()) return "";
  const std::string text =
      value.is_string() ? io::valid_utf8(value.get<std::string>()) : io::json_text(value);
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

}  // namespace

std::string csv_table(const std::vector<nlohmann::ordered_json>& rows) {
  std::vector<std::string> columns;
  for (const auto& row : rows) {
    for (const auto& [key, value] : row.items()) {
      if (std::find(columns.begin(), columns.end(), key) == columns.end()) columns.push_back(key);
    }
  }
  std::string out;
  const auto put = [&](size_t i, const std::string& text) {
    if (i > 0) out += ',';
    out += text;
    if (i + 1 == columns.size()) out += '\n';
  };
  for (size_t i = 0; i < columns.size(); ++i) put(i, field(columns[i]));
  for (const auto& row : rows) {
    for (size_t i = 0; i < columns.size(); ++i) {
      const auto it = row.find(columns[i]);
      put(i, it == row.end() ? std::string() : field(*it));
    }
  }
  return out;
}

}  // namespace vkflux
