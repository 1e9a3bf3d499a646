"""Makes the panel's two font files from Debian's package fonts-inter. See README.md beside it."""

import sys

from fontTools import subset
from fontTools.ttLib import TTFont, newTable
from fontTools.ttLib.tables._k_e_r_n import KernTable_format_0

# Latin with every accent, Greek, Cyrillic, Vietnamese, the punctuation of names, a hollow square.
RANGES = [
    (0x20, 0x7E), (0xA0, 0x17F), (0x18F, 0x192), (0x1A0, 0x1B0), (0x1CD, 0x233), (0x251, 0x259),
    (0x2B9, 0x2DD), (0x370, 0x3FF), (0x400, 0x52F), (0x1E00, 0x1EFF), (0x2010, 0x2015),
    (0x2018, 0x201E), (0x2022, 0x2022), (0x2026, 0x2026), (0x2039, 0x203A), (0x20AC, 0x20AC), (0x25A1, 0x25A1),
]
FAMILY = "Facelatch Panel"


def pair_kerning(font):
    """GPOS pair kerning between printable ASCII and Latin-1 letters, as {(left, right): units}."""
    cmap = font.getBestCmap()
    keep = {cmap[c] for a, b in [(0x21, 0x7E), (0xC0, 0xFF)] for c in range(a, b + 1) if c in cmap}
    gpos = font["GPOS"].table
    lookups = sorted({i for f in gpos.FeatureList.FeatureRecord if f.FeatureTag == "kern" for i in f.Feature.LookupListIndex})
    pairs = {}
    for index in lookups:
        seen_here = set()
        for table in gpos.LookupList.Lookup[index].SubTable:
            if table.LookupType == 9:
                table = table.ExtSubTable
            if table.LookupType != 2:
                continue
            for position, left in enumerate(table.Coverage.glyphs):
                if left not in keep:
                    continue
                if table.Format == 1:
                    for record in table.PairSet[position].PairValueRecord:
                        key = (left, record.SecondGlyph)
                        if record.SecondGlyph in keep and key not in seen_here:
                            seen_here.add(key)
                            pairs.setdefault(key, getattr(record.Value1, "XAdvance", 0) or 0)
                else:
                    row = table.Class1Record[table.ClassDef1.classDefs.get(left, 0)].Class2Record
                    for right in keep:
                        key = (left, right)
                        value = row[table.ClassDef2.classDefs.get(right, 0)].Value1
                        if key not in seen_here:
                            seen_here.add(key)
                            pairs.setdefault(key, getattr(value, "XAdvance", 0) or 0 if value else 0)
    floor = font["head"].unitsPerEm / 150
    return {key: value for key, value in pairs.items() if abs(value) >= floor}


def make(source, target, style):
    font = TTFont(source)
    pairs = pair_kerning(font)
    options = subset.Options()
    options.layout_features = []
    options.hinting = False
    options.desubroutinize = False
    options.name_IDs = [0, 1, 2, 3, 4, 5, 6, 13, 14]
    options.drop_tables += ["GSUB", "GPOS", "GDEF", "DSIG", "STAT", "meta", "MVAR", "HVAR"]
    options.notdef_outline = True
    tool = subset.Subsetter(options)
    tool.populate(unicodes=[c for a, b in RANGES for c in range(a, b + 1)])
    tool.subset(font)
    order = set(font.getGlyphOrder())
    kern = newTable("kern")
    kern.version = 0
    table = KernTable_format_0()
    table.coverage = 1
    table.kernTable = {key: value for key, value in pairs.items() if order.issuperset(key)}
    kern.kernTables = [table]
    font["kern"] = kern
    for record in list(font["name"].names):
        text = {1: FAMILY, 2: style, 3: f"{FAMILY} {style}", 4: f"{FAMILY} {style}", 6: f"FacelatchPanel-{style}"}.get(record.nameID)
        if text:
            font["name"].setName(text, record.nameID, record.platformID, record.platEncID, record.langID)
    if "CFF " in font:
        cff = font["CFF "].cff
        cff.fontNames = [f"FacelatchPanel-{style}"]
        top = cff.topDictIndex[0]
        top.FullName = f"{FAMILY} {style}"
        top.FamilyName = FAMILY
    font["head"].modified = font["head"].created
    font.recalcTimestamp = False
    font.save(target)
    print(f"{target}: {len(font.getGlyphOrder())} glyphs, {len(table.kernTable)} kerning pairs")


if __name__ == "__main__":
    make(*sys.argv[1:4])
