// SPDX-License-Identifier: Apache-2.0
// The keyword "format": names, and the expression that such a string matches.
#pragma once
#include <string_view>
#include <utility>

namespace gptq::text::constraint {

#define GPTQ_DAYS "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
#define GPTQ_LEAP "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"
#define GPTQ_DATE "([0-9]{4}-" GPTQ_DAYS "|" GPTQ_LEAP "-02-29)"
#define GPTQ_TIME "(([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]+)?([zZ]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])|23:59:60(\\.[0-9]+)?[zZ])"
#define GPTQ_BYTE "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define GPTQ_IPV4 GPTQ_BYTE "(\\." GPTQ_BYTE "){3}"
#define GPTQ_HEX "[0-9a-fA-F]{1,4}"
#define GPTQ_LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define GPTQ_VARIABLE "[A-Za-z0-9_.%]+(:[1-9][0-9]{0,3}|\\*)?"
// RFC 3986 and 3987: a scheme; characters, those of a first segment without ':' apart; what may follow '#'.
#define GPTQ_SCHEME "[A-Za-z][A-Za-z0-9+.-]*:"
#define GPTQ_HEX_BYTE "%[0-9a-fA-F]{2}"
#define GPTQ_URI_CHAR "([!$&-;=?-Z\\[\\]_a-z~]|" GPTQ_HEX_BYTE ")"
#define GPTQ_IRI_CHAR "([^\\s<>\"{}|\\\\^`#%]|" GPTQ_HEX_BYTE ")"
#define GPTQ_URI_FIRST "([!$&-.0-9;=@-Z\\[\\]_a-z~]|" GPTQ_HEX_BYTE ")"
#define GPTQ_IRI_FIRST "([^\\s<>\"{}|\\\\^`#%:/?]|" GPTQ_HEX_BYTE ")"
#define GPTQ_REST(CHAR) CHAR "*(#" CHAR "*)?"
#define GPTQ_REFERENCE(FIRST, CHAR) "(" GPTQ_SCHEME CHAR "*|" FIRST "*([/?]" CHAR "*)?)(#" CHAR "*)?"
inline constexpr std::pair<std::string_view, std::string_view> formats[] = {
    {"date", "^" GPTQ_DATE "$"},
    {"time", "^" GPTQ_TIME "$"},
    {"date-time", "^" GPTQ_DATE "[tT]" GPTQ_TIME "$"},
    {"duration",
     "^P([0-9]+W|([0-9]+D|[0-9]+M([0-9]+D)?|[0-9]+Y([0-9]+M([0-9]+D)?)?)(T([0-9]+S|[0-9]+M([0-9]+S)?|[0-9]+H([0-9]+M([0-9]+S)?)?))?"
     "|T([0-9]+S|[0-9]+M([0-9]+S)?|[0-9]+H([0-9]+M([0-9]+S)?)?))$"},
    {"uuid", "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"},
    {"ipv4", "^" GPTQ_IPV4 "$"},
    {"ipv6", "^((" GPTQ_HEX ":){7}" GPTQ_HEX "|(" GPTQ_HEX ":){1,7}:|(" GPTQ_HEX ":){1,6}:" GPTQ_HEX "|(" GPTQ_HEX ":){1,5}(:" GPTQ_HEX
             "){1,2}|(" GPTQ_HEX ":){1,4}(:" GPTQ_HEX "){1,3}"
             "|(" GPTQ_HEX ":){1,3}(:" GPTQ_HEX "){1,4}|(" GPTQ_HEX ":){1,2}(:" GPTQ_HEX "){1,5}|" GPTQ_HEX ":(:" GPTQ_HEX
             "){1,6}|:((:" GPTQ_HEX "){1,7}|:)"
             "|(" GPTQ_HEX ":){6}" GPTQ_IPV4 "|::(" GPTQ_HEX ":){0,5}" GPTQ_IPV4 "|" GPTQ_HEX "::(" GPTQ_HEX ":){0,4}" GPTQ_IPV4
             "|(" GPTQ_HEX ":){2}:(" GPTQ_HEX ":){0,3}" GPTQ_IPV4 "|(" GPTQ_HEX ":){3}:(" GPTQ_HEX ":){0,2}" GPTQ_IPV4 "|(" GPTQ_HEX
             ":){4}:(" GPTQ_HEX ":)?" GPTQ_IPV4 "|(" GPTQ_HEX ":){5}:" GPTQ_IPV4 ")$"},
    {"hostname", "^" GPTQ_LABEL "(\\." GPTQ_LABEL ")*$"},
    {"email", "^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@" GPTQ_LABEL "(\\." GPTQ_LABEL ")*$"},
    {"uri", "^" GPTQ_SCHEME GPTQ_REST(GPTQ_URI_CHAR) "$"},
    {"uri-reference", "^" GPTQ_REFERENCE(GPTQ_URI_FIRST, GPTQ_URI_CHAR) "$"},
    {"iri", "^" GPTQ_SCHEME GPTQ_REST(GPTQ_IRI_CHAR) "$"},
    {"iri-reference", "^" GPTQ_REFERENCE(GPTQ_IRI_FIRST, GPTQ_IRI_CHAR) "$"},
    {"uri-template", "^([^\\s\"'<>\\\\^`{|}]|\\{[+#./;?&=,!@|]?" GPTQ_VARIABLE "(," GPTQ_VARIABLE ")*\\})*$"},
    {"json-pointer", "^(/([^~/]|~[01])*)*$"},
    {"relative-json-pointer", "^(0|[1-9][0-9]*)(#|(/([^~/]|~[01])*)*)$"},
};
inline constexpr std::string_view formats_refused[] = {"regex", "idn-email", "idn-hostname"};  // no expression says them
#undef GPTQ_DAYS
#undef GPTQ_LEAP
#undef GPTQ_DATE
#undef GPTQ_TIME
#undef GPTQ_BYTE
#undef GPTQ_IPV4
#undef GPTQ_HEX
#undef GPTQ_LABEL
#undef GPTQ_SCHEME
#undef GPTQ_HEX_BYTE
#undef GPTQ_URI_CHAR
#undef GPTQ_IRI_CHAR
#undef GPTQ_URI_FIRST
#undef GPTQ_IRI_FIRST
#undef GPTQ_REST
#undef GPTQ_REFERENCE
#undef GPTQ_VARIABLE

}  // namespace gptq::text::constraint
