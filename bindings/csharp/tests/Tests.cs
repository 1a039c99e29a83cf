// SPDX-License-Identifier: Apache-2.0
// tests.exe LAYOUT CASES MODELS: prints "ok - NAME" and "not ok - NAME".
using System;
using System.IO;
using System.Linq;

static class Tests {
  static bool Layout(string path) {
    var expected = File.ReadAllLines(path).Select(line => line.Split(' ')).ToDictionary(parts => parts[0], parts => long.Parse(parts[1]));
    var found = LayoutFacts.All().ToDictionary(fact => fact.Key, fact => fact.Value);
    var wrong = expected.Keys.Union(found.Keys).Where(name => {
      long a, b;
      return !expected.TryGetValue(name, out a) | !found.TryGetValue(name, out b) || a != b;
    }).ToList();
    bool good = wrong.Count == 0 && found.Count > 200;
    Console.WriteLine(good ? "ok - " + found.Count + " constants, sizes and offsets" : "not ok - layout: " + string.Join(" ", wrong));
    return good;
  }

  static int Main(string[] arguments) {
    bool good = Layout(arguments[0]);
    good &= Case.All(arguments[1], arguments[2]);
    good &= Behaviour.All(arguments[2]);
    return good ? 0 : 1;
  }
}
