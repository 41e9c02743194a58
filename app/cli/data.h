// What people bring to commands: data sets, pictures and texts, and what is said of them.
#pragma once

#include <string>
#include <vector>

#include "model/generate_job.h"
#include "model/text/cut.h"
#include "train/data/dataset.h"

namespace vkflux::cli {

/// A warning that one run of the program gives once, however often it is met.
void say_once(const std::string& sentence);

/// Opens it, and says what of it is left out or changed.
Dataset open_dataset(const std::string& folder);

/// The picture of a flag, upright; says what that changed.
io::Picture read_given_picture(const std::string& flag, const std::string& path);

/// Says how many of the texts ("prompts") an encoder doesn't read to their ends, and what is lost.
void say_cuts(const std::string& what, const std::vector<std::string>& texts,
              const std::vector<TextCut>& cuts);

}  // namespace vkflux::cli
