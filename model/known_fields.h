// The fields that configs of models' parts may have: what isn't known is told, since a picture may depend on
// it.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <string_view>

#include "model/io/json.h"

namespace vkflux {

/// Of text encoders' configs as transformers writes them: those that are read, and training, generation and
/// bookkeeping.
const std::set<std::string_view>& text_fields();

/// A remark on each field of a part's config.json ("transformer", "vae", ...) that isn't among the known
/// ones: what it stands for isn't honoured. Empty objects and lists, null and names that begin with "_" say
/// nothing. remark: may be empty.
void tell_unknown_fields(std::string_view part, const io::Json& config,
                         const std::set<std::string_view>& known,
                         const std::function<void(const std::string&)>& remark);

}  // namespace vkflux
