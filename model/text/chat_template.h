// Chat templates: the part of Jinja that transformers' tokenizers write them in.
#pragma once

#include <memory>
#include <string>

#include "model/io/json.h"

namespace vkflux {

class ChatTemplate {
 public:
  /// Error format where the template can't be read, unsupported for a statement that isn't known.
  explicit ChatTemplate(const std::string& source);
  ~ChatTemplate();

  /// The text for these variables (an object), with blocks trimmed as transformers does. Error
  /// invalid_argument with what the template itself objects to, unsupported for filters, tests, methods and
  /// functions that aren't known, format when it doesn't end in good time.
  std::string render(const io::Json& variables) const;

 private:
  struct Program;
  std::unique_ptr<const Program> program_;
};

}  // namespace vkflux
