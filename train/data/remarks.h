// What was adjusted or left out, said once for each kind.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/io/picture.h"

namespace vkflux {

class Remarks {
 public:
  /// `what` begins the sentence ("left out, links that lead nowhere"), `name` is one more of that kind.
  void add(const std::string& what, const std::string& name) { names_[what].push_back(name); }
  bool empty() const { return names_.empty(); }
  const std::map<std::string, std::vector<std::string>>& names() const { return names_; }

  /// "WHAT: COUNT (NAME, NAME, ...)", with the first few names.
  std::vector<std::string> sentences() const;

 private:
  std::map<std::string, std::vector<std::string>> names_;
};

/// What reading a picture changes: its orientation, transparency, bits, colours.
void remark_picture(const io::PictureFacts& facts, const std::string& name, Remarks& remarks);

}  // namespace vkflux
