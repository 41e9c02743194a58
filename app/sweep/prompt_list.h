// Prompts from files, in the encodings of io::decode_text(): a JSON array of texts, or one text a line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace vkflux {

/// The texts, unchanged and in order; there may be none. White space around the path is dropped. Errors name
/// the path: invalid_argument (no path), io (no such file), format (no JSON, no array, an element that is no
/// text, bytes that are no text).
std::vector<std::string> load_prompt_list(const std::string& path);

/// A .json file as load_prompt_list() reads it; of any other file every line that isn't empty and doesn't
/// start with #, without spaces and tabs at its end.
std::vector<std::string> read_prompt_file(const std::string& path);

/// Error invalid_argument, naming the flag and the byte, unless a text of the command line is UTF-8.
void check_text(std::string_view flag, const std::string& text);

/// The given prompts, then those of the file ("": none). Error invalid_argument when none is given and there
/// is no file, or one isn't UTF-8; format when the file holds none.
std::vector<std::string> all_prompts(const std::vector<std::string>& given, const std::string& file);

}  // namespace vkflux
