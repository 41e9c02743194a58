// The small files of a trained model's folder: configs, and what it takes over from others.
#pragma once

#include <cstdint>
#include <string>

#include "model/io/json.h"

namespace vkflux {

void write_json(const std::string& path, const io::Json& json);

/// Copies the files of a folder (not its folders); nothing where both are the same folder.
void copy_folder(const std::string& from, const std::string& to);
/// The same of a tokenizer for an encoder of `length` ids: whoever pads to what its files say must fit it.
void copy_tokenizer(const std::string& from, const std::string& to, int64_t length);

}  // namespace vkflux
