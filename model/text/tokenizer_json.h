// What readers of tokenizers' JSON share: members that may be missing, and errors that name the file.
#pragma once

#include <string>
#include <string_view>

#include "model/io/json.h"
#include "model/text/tokenizer_byte_bpe.h"

namespace vkflux::tokenizer_json {

using nlohmann::json;

/// null where there is none, or no object.
const json& member(const json& object, const char* key);
/// "" where it is no text.
std::string text_of(const json& object, const char* key);
/// Error format for anything but true, false and null, which is `fallback`.
bool flag_of(const json& object, const char* key, bool fallback, const std::string& origin);
int64_t id_of(const json& value, const std::string& origin);
/// An empty object of an empty text.
json object_of(std::string_view text, const std::string& origin);

/// Adds a token, in place of one of the same text; none of an empty one.
void add(ByteBpeModel& out, const ByteBpeModel::Added& token);
/// "a b".
void take_merge(std::string_view line, size_t number, const std::string& origin, ByteBpeModel& out);

}  // namespace vkflux::tokenizer_json
