// SPDX-License-Identifier: Apache-2.0
using System.Collections.Generic;
using System.Globalization;
using System.Text;

/// <summary>JSON that is known to be good: Dictionary, List, string, double, bool, null.</summary>
sealed class Json {
  readonly string text;
  int at;
  Json(string text) { this.text = text; }
  public static object Parse(string text) { return new Json(text).Value(); }

  char Next() {
    while (char.IsWhiteSpace(text[at])) at++;
    return text[at];
  }
  bool Take(char c) {
    if (Next() != c) return false;
    at++;
    return true;
  }
  object Value() {
    switch (Next()) {
      case '{': return Object();
      case '[': return List();
      case '"': return String();
    }
    int begin = at;
    while (at < text.Length && (char.IsLetterOrDigit(text[at]) || text[at] == '-' || text[at] == '+' || text[at] == '.')) at++;
    string word = text.Substring(begin, at - begin);
    if (word == "true" || word == "false") return word == "true";
    return word == "null" ? null : (object)double.Parse(word, CultureInfo.InvariantCulture);
  }
  Dictionary<string, object> Object() {
    var members = new Dictionary<string, object>();
    at++;
    while (!Take('}')) {
      Next();
      string name = String();
      Take(':');
      members[name] = Value();
      Take(',');
    }
    return members;
  }
  List<object> List() {
    var list = new List<object>();
    at++;
    while (!Take(']')) {
      list.Add(Value());
      Take(',');
    }
    return list;
  }
  string String() {
    var result = new StringBuilder();
    for (at++; text[at] != '"'; at++) {
      if (text[at] != '\\') result.Append(text[at]);
      else if (text[++at] == 'u') {
        result.Append((char)int.Parse(text.Substring(at + 1, 4), NumberStyles.HexNumber));
        at += 4;
      } else result.Append(text[at] == 'n' ? '\n' : text[at] == 't' ? '\t' : text[at]);
    }
    at++;
    return result.ToString();
  }
}
