// Fields of other programs' configs that change the result and that only some values of are implemented.
#pragma once

#include <initializer_list>
#include <string>

#include "model/io/json.h"

namespace vkflux::io {

/// Error unsupported, naming the field and its value, unless it is absent, null or one of `known`; numbers
/// are compared by value.
void refuse_other(const Json& object, const std::string& key, std::initializer_list<Json> known,
                  const std::string& origin);

/// Error format where the field is there and says something else than `actual`, which follows from the
/// weights.
void refuse_contradiction(const Json& object, const std::string& key, const Json& actual,
                          const std::string& origin);

}  // namespace vkflux::io
