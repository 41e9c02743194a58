// Text in the encodings that editors write, and in those that only look like text.
#include "model/io/text.h"

#include <gtest/gtest.h>

#include "model/io/file.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"

namespace vkflux::io {
namespace {

using test::expect_error;
using namespace std::string_literals;

std::string utf16(const std::u16string& text, bool big, bool mark = true) {
  std::string out;
  for (const char16_t c : (mark ? u"\uFEFF"s : u""s) + text) {
    const char low = static_cast<char>(c), high = static_cast<char>(c >> 8);
    out += big ? std::string{high, low} : std::string{low, high};
  }
  return out;
}

TEST(IoText, ReadsWhatEditorsWrite) {
  const std::string want = "red apple\nré\u4E2D\U0001F34E";
  EXPECT_EQ(decode_text(want, "f"), want);
  EXPECT_EQ(decode_text("\xEF\xBB\xBF" + want, "f"), want);
  for (const bool big : {false, true})
    EXPECT_EQ(decode_text(utf16(u"red apple\nré\u4E2D\U0001F34E", big), "f"), want) << big;
  EXPECT_EQ(decode_text("", "f"), "");
  EXPECT_EQ(decode_text("\xEF\xBB\xBF", "f"), "");
  EXPECT_EQ(decode_text("\xFF\xFE", "f"), "");
  const test::TempFolder folder;
  atomic_write(folder.file("x"), std::string_view("\xEF\xBB\xBFone\r\ntwo"));
  EXPECT_EQ(read_text(folder.file("x"), 100), "one\r\ntwo");
  expect_error(ErrorCode::format, {folder.file("x"), "11 bytes"}, [&] { read_text(folder.file("x"), 10); });
}

TEST(IoText, NamesFileLineAndByteOfOtherEncodings) {
  const auto refused = [](const std::string& bytes, const std::vector<std::string>& words) {
    std::vector<std::string> all{"f.txt", "UTF-8"};
    all.insert(all.end(), words.begin(), words.end());
    expect_error(ErrorCode::format, all, [&] { decode_text(bytes, "f.txt"); });
  };
  refused("red\nr\xE9tro apple", {"line 2", "0xE9", "offset 5"});                // Latin-1
  refused("a\r\nb\r\n\x93quoted\x94", {"line 3", "0x93", "offset 6"});           // Windows-1252
  refused("x\ry\r\x83\x8A\x83\x93\x83S", {"line 3", "0x83", "offset 4"});        // Shift-JIS
  refused("\xD6\xD0\xCE\xC4", {"line 1", "0xD6", "offset 0"});                   // GBK
  refused("\x1B$B%j%s%4\x1B(B", {"line 1", "0x1B", "escape"});                   // ISO-2022-JP
  refused("\xC0\xAF", {"0xC0"});                                                 // overlong
  refused("ab\xED\xA0\xBD\xED\xB2\x96", {"0xED", "offset 2"});                   // CESU-8
  refused("\xF4\x90\x80\x80", {"0xF4"});                                         // beyond U+10FFFF
  refused("red \xE9", {"offset 4"});                                             // cut in a character
  refused("ab\nc\0d"s, {"line 2", "0x00", "offset 4", "NUL"});                   //
  refused(utf16(u"red apple", false, false), {"line 1", "offset 1", "UTF-16"});  // no mark
  refused(utf16(u"red apple", true, false), {"line 1", "offset 0", "UTF-16"});   //
  refused("\xFF\xFE\0\0r\0\0\0"s, {"UTF-32"});                                   //
  refused("\0\0\xFE\xFF\0\0\0r"s, {"UTF-32"});                                   //
  refused(utf16(u"a\nb", false) + "c", {"line 2", "0x63", "offset 8", "half"});  //
  refused(utf16(u"a\n\xD83D", false), {"line 2", "0x3D", "offset 6", "pair"});   //
  refused(utf16(u"\xD83Dx", true), {"0xD8", "offset 2", "pair"});                //
  refused(utf16(u"\xDC00x", true), {"0xDC", "offset 2", "pair"});                //
  refused(utf16(u"r\0x"s, false), {"NUL", "offset 4"});                          //
}

TEST(IoText, LinesEndInThreeWays) {
  using Lines = std::vector<std::string>;
  EXPECT_EQ(split_lines("a\nb"), (Lines{"a", "b"}));
  EXPECT_EQ(split_lines("a\r\nb\r\n"), (Lines{"a", "b"}));
  EXPECT_EQ(split_lines("a\rb\r"), (Lines{"a", "b"}));
  EXPECT_EQ(split_lines("a\n\r\n\rb"), (Lines{"a", "", "", "b"}));
  EXPECT_EQ(split_lines("a\n\xEF\xBB\xBF"
                        "b"),
            (Lines{"a", "b"}));  // two files joined
  EXPECT_EQ(split_lines(""), Lines{});
  EXPECT_EQ(split_lines("\n"), Lines{""});
}

}  // namespace
}  // namespace vkflux::io
