//! The instruction table: every 32-bit instruction, once.
//!
//! A row is the [`Opcode`], the encoding as bit columns (spaces only group; `.` is an operand bit), the
//! operands as a name of [`mod@crate::operand::format`], the extensions that must all be there, and the
//! mnemonic. The decoder, the disassembler and the encoder are derived from it. Encodings are those of the
//! Unprivileged and Privileged ISA specifications for RV64.
//!
//! Two rows may match the same word only where one `refines` the other: the finer one then wins, and where
//! its extension is missing the coarser one takes the word, which is what the specifications say of hints.

use crate::isa::{Extension, Isa};
use crate::operand::{Operand, format};

/// Hands the instruction table to the macro `$with`.
macro_rules! for_each_insn {
    ($with:ident) => { $with! {
        // RV64I: integer computation (Unprivileged ISA, "RV32I" and "RV64I").
        Lui           ".................... ..... 0110111"        U             [I]           "lui";
        Auipc         ".................... ..... 0010111"        U             [I]           "auipc";
        Addi          "............ ..... 000 ..... 0010011"      I             [I]           "addi";
        Slti          "............ ..... 010 ..... 0010011"      I             [I]           "slti";
        Sltiu         "............ ..... 011 ..... 0010011"      I             [I]           "sltiu";
        Xori          "............ ..... 100 ..... 0010011"      I             [I]           "xori";
        Ori           "............ ..... 110 ..... 0010011"      I             [I]           "ori";
        Andi          "............ ..... 111 ..... 0010011"      I             [I]           "andi";
        Slli          "000000 ...... ..... 001 ..... 0010011"     SHIFT6        [I]           "slli";
        Srli          "000000 ...... ..... 101 ..... 0010011"     SHIFT6        [I]           "srli";
        Srai          "010000 ...... ..... 101 ..... 0010011"     SHIFT6        [I]           "srai";
        Add           "0000000 ..... ..... 000 ..... 0110011"     R             [I]           "add";
        Sub           "0100000 ..... ..... 000 ..... 0110011"     R             [I]           "sub";
        Sll           "0000000 ..... ..... 001 ..... 0110011"     R             [I]           "sll";
        Slt           "0000000 ..... ..... 010 ..... 0110011"     R             [I]           "slt";
        Sltu          "0000000 ..... ..... 011 ..... 0110011"     R             [I]           "sltu";
        Xor           "0000000 ..... ..... 100 ..... 0110011"     R             [I]           "xor";
        Srl           "0000000 ..... ..... 101 ..... 0110011"     R             [I]           "srl";
        Sra           "0100000 ..... ..... 101 ..... 0110011"     R             [I]           "sra";
        Or            "0000000 ..... ..... 110 ..... 0110011"     R             [I]           "or";
        And           "0000000 ..... ..... 111 ..... 0110011"     R             [I]           "and";
        Addiw         "............ ..... 000 ..... 0011011"      I             [I]           "addiw";
        Slliw         "0000000 ..... ..... 001 ..... 0011011"     SHIFT5        [I]           "slliw";
        Srliw         "0000000 ..... ..... 101 ..... 0011011"     SHIFT5        [I]           "srliw";
        Sraiw         "0100000 ..... ..... 101 ..... 0011011"     SHIFT5        [I]           "sraiw";
        Addw          "0000000 ..... ..... 000 ..... 0111011"     R             [I]           "addw";
        Subw          "0100000 ..... ..... 000 ..... 0111011"     R             [I]           "subw";
        Sllw          "0000000 ..... ..... 001 ..... 0111011"     R             [I]           "sllw";
        Srlw          "0000000 ..... ..... 101 ..... 0111011"     R             [I]           "srlw";
        Sraw          "0100000 ..... ..... 101 ..... 0111011"     R             [I]           "sraw";

        // RV64I: control transfer.
        Jal           ".................... ..... 1101111"        J             [I]           "jal";
        Jalr          "............ ..... 000 ..... 1100111"      LOAD          [I]           "jalr";
        Beq           "....... ..... ..... 000 ..... 1100011"     BRANCH        [I]           "beq";
        Bne           "....... ..... ..... 001 ..... 1100011"     BRANCH        [I]           "bne";
        Blt           "....... ..... ..... 100 ..... 1100011"     BRANCH        [I]           "blt";
        Bge           "....... ..... ..... 101 ..... 1100011"     BRANCH        [I]           "bge";
        Bltu          "....... ..... ..... 110 ..... 1100011"     BRANCH        [I]           "bltu";
        Bgeu          "....... ..... ..... 111 ..... 1100011"     BRANCH        [I]           "bgeu";

        // RV64I: loads and stores.
        Lb            "............ ..... 000 ..... 0000011"      LOAD          [I]           "lb";
        Lh            "............ ..... 001 ..... 0000011"      LOAD          [I]           "lh";
        Lw            "............ ..... 010 ..... 0000011"      LOAD          [I]           "lw";
        Ld            "............ ..... 011 ..... 0000011"      LOAD          [I]           "ld";
        Lbu           "............ ..... 100 ..... 0000011"      LOAD          [I]           "lbu";
        Lhu           "............ ..... 101 ..... 0000011"      LOAD          [I]           "lhu";
        Lwu           "............ ..... 110 ..... 0000011"      LOAD          [I]           "lwu";
        Sb            "....... ..... ..... 000 ..... 0100011"     STORE         [I]           "sb";
        Sh            "....... ..... ..... 001 ..... 0100011"     STORE         [I]           "sh";
        Sw            "....... ..... ..... 010 ..... 0100011"     STORE         [I]           "sw";
        Sd            "....... ..... ..... 011 ..... 0100011"     STORE         [I]           "sd";

        // RV64I, Zifencei, Zihintpause: ordering. The reserved fields of `fence` and `fence.i` are ignored,
        // as "base implementations shall ignore these fields" asks.
        Fence         "............ ..... 000 ..... 0001111"      FENCE         [I]           "fence";
        FenceTso      "1000 0011 0011 00000 000 00000 0001111"    NONE          [I]           "fence.tso" refines Fence;
        Pause         "0000 0001 0000 00000 000 00000 0001111"    NONE          [Zihintpause] "pause" refines Fence;
        FenceI        "............ ..... 001 ..... 0001111"      NONE          [Zifencei]    "fence.i";

        // RV64I and Privileged: system. Every hart has M, S and U mode, so these need no extension of their
        // own.
        Ecall         "000000000000 00000 000 00000 1110011"      NONE          [I]           "ecall";
        Ebreak        "000000000001 00000 000 00000 1110011"      NONE          [I]           "ebreak";
        Sret          "000100000010 00000 000 00000 1110011"      NONE          [I]           "sret";
        Mret          "001100000010 00000 000 00000 1110011"      NONE          [I]           "mret";
        Wfi           "000100000101 00000 000 00000 1110011"      NONE          [I]           "wfi";
        SfenceVma     "0001001 ..... ..... 000 00000 1110011"     RS1_RS2       [I]           "sfence.vma";

        // Svinval.
        SinvalVma     "0001011 ..... ..... 000 00000 1110011"     RS1_RS2       [Svinval]     "sinval.vma";
        SfenceWInval  "0001100 00000 00000 000 00000 1110011"     NONE          [Svinval]     "sfence.w.inval";
        SfenceInvalIr "0001100 00001 00000 000 00000 1110011"     NONE          [Svinval]     "sfence.inval.ir";

        // Zawrs.
        WrsNto        "000000001101 00000 000 00000 1110011"      NONE          [Zawrs]       "wrs.nto";
        WrsSto        "000000011101 00000 000 00000 1110011"      NONE          [Zawrs]       "wrs.sto";

        // Zicsr.
        Csrrw         "............ ..... 001 ..... 1110011"      CSR           [Zicsr]       "csrrw";
        Csrrs         "............ ..... 010 ..... 1110011"      CSR           [Zicsr]       "csrrs";
        Csrrc         "............ ..... 011 ..... 1110011"      CSR           [Zicsr]       "csrrc";
        Csrrwi        "............ ..... 101 ..... 1110011"      CSR_IMM       [Zicsr]       "csrrwi";
        Csrrsi        "............ ..... 110 ..... 1110011"      CSR_IMM       [Zicsr]       "csrrsi";
        Csrrci        "............ ..... 111 ..... 1110011"      CSR_IMM       [Zicsr]       "csrrci";

        // Zimop: one row for all 32 (8) of them, the number is the immediate.
        MopR          "1 . 00 .. 0111 .. ..... 100 ..... 1110011" MOP_R         [Zimop]       "mop.r";
        MopRr         "1 . 00 .. 1 ..... ..... 100 ..... 1110011" MOP_RR        [Zimop]       "mop.rr";

        // Zicbom, Zicboz, Zicbop.
        CboInval      "000000000000 ..... 010 00000 0001111"      ADDRESS       [Zicbom]      "cbo.inval";
        CboClean      "000000000001 ..... 010 00000 0001111"      ADDRESS       [Zicbom]      "cbo.clean";
        CboFlush      "000000000010 ..... 010 00000 0001111"      ADDRESS       [Zicbom]      "cbo.flush";
        CboZero       "000000000100 ..... 010 00000 0001111"      ADDRESS       [Zicboz]      "cbo.zero";
        PrefetchI     "....... 00000 ..... 110 00000 0010011"     PREFETCH      [Zicbop]      "prefetch.i" refines Ori;
        PrefetchR     "....... 00001 ..... 110 00000 0010011"     PREFETCH      [Zicbop]      "prefetch.r" refines Ori;
        PrefetchW     "....... 00011 ..... 110 00000 0010011"     PREFETCH      [Zicbop]      "prefetch.w" refines Ori;

        // M (Zmmul is its multiplications alone).
        Mul           "0000001 ..... ..... 000 ..... 0110011"     R             [Zmmul]       "mul";
        Mulh          "0000001 ..... ..... 001 ..... 0110011"     R             [Zmmul]       "mulh";
        Mulhsu        "0000001 ..... ..... 010 ..... 0110011"     R             [Zmmul]       "mulhsu";
        Mulhu         "0000001 ..... ..... 011 ..... 0110011"     R             [Zmmul]       "mulhu";
        Div           "0000001 ..... ..... 100 ..... 0110011"     R             [M]           "div";
        Divu          "0000001 ..... ..... 101 ..... 0110011"     R             [M]           "divu";
        Rem           "0000001 ..... ..... 110 ..... 0110011"     R             [M]           "rem";
        Remu          "0000001 ..... ..... 111 ..... 0110011"     R             [M]           "remu";
        Mulw          "0000001 ..... ..... 000 ..... 0111011"     R             [Zmmul]       "mulw";
        Divw          "0000001 ..... ..... 100 ..... 0111011"     R             [M]           "divw";
        Divuw         "0000001 ..... ..... 101 ..... 0111011"     R             [M]           "divuw";
        Remw          "0000001 ..... ..... 110 ..... 0111011"     R             [M]           "remw";
        Remuw         "0000001 ..... ..... 111 ..... 0111011"     R             [M]           "remuw";

        // A: Zalrsc and Zaamo. The two lone columns are aq and rl.
        LrW           "00010 . . 00000 ..... 010 ..... 0101111"   LR            [Zalrsc]      "lr.w";
        ScW           "00011 . . ..... ..... 010 ..... 0101111"   AMO           [Zalrsc]      "sc.w";
        LrD           "00010 . . 00000 ..... 011 ..... 0101111"   LR            [Zalrsc]      "lr.d";
        ScD           "00011 . . ..... ..... 011 ..... 0101111"   AMO           [Zalrsc]      "sc.d";
        AmoswapW      "00001 . . ..... ..... 010 ..... 0101111"   AMO           [Zaamo]       "amoswap.w";
        AmoaddW       "00000 . . ..... ..... 010 ..... 0101111"   AMO           [Zaamo]       "amoadd.w";
        AmoxorW       "00100 . . ..... ..... 010 ..... 0101111"   AMO           [Zaamo]       "amoxor.w";
        AmoandW       "01100 . . ..... ..... 010 ..... 0101111"   AMO           [Zaamo]       "amoand.w";
        AmoorW        "01000 . . ..... ..... 010 ..... 0101111"   AMO           [Zaamo]       "amoor.w";
        AmominW       "10000 . . ..... ..... 010 ..... 0101111"   AMO           [Zaamo]       "amomin.w";
        AmomaxW       "10100 . . ..... ..... 010 ..... 0101111"   AMO           [Zaamo]       "amomax.w";
        AmominuW      "11000 . . ..... ..... 010 ..... 0101111"   AMO           [Zaamo]       "amominu.w";
        AmomaxuW      "11100 . . ..... ..... 010 ..... 0101111"   AMO           [Zaamo]       "amomaxu.w";
        AmoswapD      "00001 . . ..... ..... 011 ..... 0101111"   AMO           [Zaamo]       "amoswap.d";
        AmoaddD       "00000 . . ..... ..... 011 ..... 0101111"   AMO           [Zaamo]       "amoadd.d";
        AmoxorD       "00100 . . ..... ..... 011 ..... 0101111"   AMO           [Zaamo]       "amoxor.d";
        AmoandD       "01100 . . ..... ..... 011 ..... 0101111"   AMO           [Zaamo]       "amoand.d";
        AmoorD        "01000 . . ..... ..... 011 ..... 0101111"   AMO           [Zaamo]       "amoor.d";
        AmominD       "10000 . . ..... ..... 011 ..... 0101111"   AMO           [Zaamo]       "amomin.d";
        AmomaxD       "10100 . . ..... ..... 011 ..... 0101111"   AMO           [Zaamo]       "amomax.d";
        AmominuD      "11000 . . ..... ..... 011 ..... 0101111"   AMO           [Zaamo]       "amominu.d";
        AmomaxuD      "11100 . . ..... ..... 011 ..... 0101111"   AMO           [Zaamo]       "amomaxu.d";

        // Zabha.
        AmoswapB      "00001 . . ..... ..... 000 ..... 0101111"   AMO           [Zabha]       "amoswap.b";
        AmoaddB       "00000 . . ..... ..... 000 ..... 0101111"   AMO           [Zabha]       "amoadd.b";
        AmoxorB       "00100 . . ..... ..... 000 ..... 0101111"   AMO           [Zabha]       "amoxor.b";
        AmoandB       "01100 . . ..... ..... 000 ..... 0101111"   AMO           [Zabha]       "amoand.b";
        AmoorB        "01000 . . ..... ..... 000 ..... 0101111"   AMO           [Zabha]       "amoor.b";
        AmominB       "10000 . . ..... ..... 000 ..... 0101111"   AMO           [Zabha]       "amomin.b";
        AmomaxB       "10100 . . ..... ..... 000 ..... 0101111"   AMO           [Zabha]       "amomax.b";
        AmominuB      "11000 . . ..... ..... 000 ..... 0101111"   AMO           [Zabha]       "amominu.b";
        AmomaxuB      "11100 . . ..... ..... 000 ..... 0101111"   AMO           [Zabha]       "amomaxu.b";
        AmoswapH      "00001 . . ..... ..... 001 ..... 0101111"   AMO           [Zabha]       "amoswap.h";
        AmoaddH       "00000 . . ..... ..... 001 ..... 0101111"   AMO           [Zabha]       "amoadd.h";
        AmoxorH       "00100 . . ..... ..... 001 ..... 0101111"   AMO           [Zabha]       "amoxor.h";
        AmoandH       "01100 . . ..... ..... 001 ..... 0101111"   AMO           [Zabha]       "amoand.h";
        AmoorH        "01000 . . ..... ..... 001 ..... 0101111"   AMO           [Zabha]       "amoor.h";
        AmominH       "10000 . . ..... ..... 001 ..... 0101111"   AMO           [Zabha]       "amomin.h";
        AmomaxH       "10100 . . ..... ..... 001 ..... 0101111"   AMO           [Zabha]       "amomax.h";
        AmominuH      "11000 . . ..... ..... 001 ..... 0101111"   AMO           [Zabha]       "amominu.h";
        AmomaxuH      "11100 . . ..... ..... 001 ..... 0101111"   AMO           [Zabha]       "amomaxu.h";

        // Zacas. The quadword form names even registers only: odd ones are reserved.
        AmocasB       "00101 . . ..... ..... 000 ..... 0101111"   AMO           [Zabha Zacas] "amocas.b";
        AmocasH       "00101 . . ..... ..... 001 ..... 0101111"   AMO           [Zabha Zacas] "amocas.h";
        AmocasW       "00101 . . ..... ..... 010 ..... 0101111"   AMO           [Zacas]       "amocas.w";
        AmocasD       "00101 . . ..... ..... 011 ..... 0101111"   AMO           [Zacas]       "amocas.d";
        AmocasQ       "00101 . . ....0 ..... 100 ....0 0101111"   AMO           [Zacas]       "amocas.q";

        // Zba.
        AddUw         "0000100 ..... ..... 000 ..... 0111011"     R             [Zba]         "add.uw";
        SlliUw        "000010 ...... ..... 001 ..... 0011011"     SHIFT6        [Zba]         "slli.uw";
        Sh1add        "0010000 ..... ..... 010 ..... 0110011"     R             [Zba]         "sh1add";
        Sh2add        "0010000 ..... ..... 100 ..... 0110011"     R             [Zba]         "sh2add";
        Sh3add        "0010000 ..... ..... 110 ..... 0110011"     R             [Zba]         "sh3add";
        Sh1addUw      "0010000 ..... ..... 010 ..... 0111011"     R             [Zba]         "sh1add.uw";
        Sh2addUw      "0010000 ..... ..... 100 ..... 0111011"     R             [Zba]         "sh2add.uw";
        Sh3addUw      "0010000 ..... ..... 110 ..... 0111011"     R             [Zba]         "sh3add.uw";

        // Zbb.
        Andn          "0100000 ..... ..... 111 ..... 0110011"     R             [Zbb]         "andn";
        Orn           "0100000 ..... ..... 110 ..... 0110011"     R             [Zbb]         "orn";
        Xnor          "0100000 ..... ..... 100 ..... 0110011"     R             [Zbb]         "xnor";
        Min           "0000101 ..... ..... 100 ..... 0110011"     R             [Zbb]         "min";
        Minu          "0000101 ..... ..... 101 ..... 0110011"     R             [Zbb]         "minu";
        Max           "0000101 ..... ..... 110 ..... 0110011"     R             [Zbb]         "max";
        Maxu          "0000101 ..... ..... 111 ..... 0110011"     R             [Zbb]         "maxu";
        Rol           "0110000 ..... ..... 001 ..... 0110011"     R             [Zbb]         "rol";
        Ror           "0110000 ..... ..... 101 ..... 0110011"     R             [Zbb]         "ror";
        Rolw          "0110000 ..... ..... 001 ..... 0111011"     R             [Zbb]         "rolw";
        Rorw          "0110000 ..... ..... 101 ..... 0111011"     R             [Zbb]         "rorw";
        Rori          "011000 ...... ..... 101 ..... 0010011"     SHIFT6        [Zbb]         "rori";
        Roriw         "0110000 ..... ..... 101 ..... 0011011"     SHIFT5        [Zbb]         "roriw";
        Clz           "0110000 00000 ..... 001 ..... 0010011"     R_UNARY       [Zbb]         "clz";
        Ctz           "0110000 00001 ..... 001 ..... 0010011"     R_UNARY       [Zbb]         "ctz";
        Cpop          "0110000 00010 ..... 001 ..... 0010011"     R_UNARY       [Zbb]         "cpop";
        SextB         "0110000 00100 ..... 001 ..... 0010011"     R_UNARY       [Zbb]         "sext.b";
        SextH         "0110000 00101 ..... 001 ..... 0010011"     R_UNARY       [Zbb]         "sext.h";
        Clzw          "0110000 00000 ..... 001 ..... 0011011"     R_UNARY       [Zbb]         "clzw";
        Ctzw          "0110000 00001 ..... 001 ..... 0011011"     R_UNARY       [Zbb]         "ctzw";
        Cpopw         "0110000 00010 ..... 001 ..... 0011011"     R_UNARY       [Zbb]         "cpopw";
        ZextH         "0000100 00000 ..... 100 ..... 0111011"     R_UNARY       [Zbb]         "zext.h";
        OrcB          "001010000111 ..... 101 ..... 0010011"      R_UNARY       [Zbb]         "orc.b";
        Rev8          "011010111000 ..... 101 ..... 0010011"      R_UNARY       [Zbb]         "rev8";

        // Zbc.
        Clmul         "0000101 ..... ..... 001 ..... 0110011"     R             [Zbc]         "clmul";
        Clmulr        "0000101 ..... ..... 010 ..... 0110011"     R             [Zbc]         "clmulr";
        Clmulh        "0000101 ..... ..... 011 ..... 0110011"     R             [Zbc]         "clmulh";

        // Zbs.
        Bclr          "0100100 ..... ..... 001 ..... 0110011"     R             [Zbs]         "bclr";
        Bext          "0100100 ..... ..... 101 ..... 0110011"     R             [Zbs]         "bext";
        Binv          "0110100 ..... ..... 001 ..... 0110011"     R             [Zbs]         "binv";
        Bset          "0010100 ..... ..... 001 ..... 0110011"     R             [Zbs]         "bset";
        Bclri         "010010 ...... ..... 001 ..... 0010011"     SHIFT6        [Zbs]         "bclri";
        Bexti         "010010 ...... ..... 101 ..... 0010011"     SHIFT6        [Zbs]         "bexti";
        Binvi         "011010 ...... ..... 001 ..... 0010011"     SHIFT6        [Zbs]         "binvi";
        Bseti         "001010 ...... ..... 001 ..... 0010011"     SHIFT6        [Zbs]         "bseti";

        // Zicond.
        CzeroEqz      "0000111 ..... ..... 101 ..... 0110011"     R             [Zicond]      "czero.eqz";
        CzeroNez      "0000111 ..... ..... 111 ..... 0110011"     R             [Zicond]      "czero.nez";

        // F.
        Flw           "............ ..... 010 ..... 0000111"      FLOAD         [F]           "flw";
        Fsw           "....... ..... ..... 010 ..... 0100111"     FSTORE        [F]           "fsw";
        FmaddS        "..... 00 ..... ..... ... ..... 1000011"    FMA           [F]           "fmadd.s";
        FmsubS        "..... 00 ..... ..... ... ..... 1000111"    FMA           [F]           "fmsub.s";
        FnmsubS       "..... 00 ..... ..... ... ..... 1001011"    FMA           [F]           "fnmsub.s";
        FnmaddS       "..... 00 ..... ..... ... ..... 1001111"    FMA           [F]           "fnmadd.s";
        FaddS         "0000000 ..... ..... ... ..... 1010011"     F_RM          [F]           "fadd.s";
        FsubS         "0000100 ..... ..... ... ..... 1010011"     F_RM          [F]           "fsub.s";
        FmulS         "0001000 ..... ..... ... ..... 1010011"     F_RM          [F]           "fmul.s";
        FdivS         "0001100 ..... ..... ... ..... 1010011"     F_RM          [F]           "fdiv.s";
        FsqrtS        "0101100 00000 ..... ... ..... 1010011"     F_UNARY_RM    [F]           "fsqrt.s";
        FsgnjS        "0010000 ..... ..... 000 ..... 1010011"     F             [F]           "fsgnj.s";
        FsgnjnS       "0010000 ..... ..... 001 ..... 1010011"     F             [F]           "fsgnjn.s";
        FsgnjxS       "0010000 ..... ..... 010 ..... 1010011"     F             [F]           "fsgnjx.s";
        FminS         "0010100 ..... ..... 000 ..... 1010011"     F             [F]           "fmin.s";
        FmaxS         "0010100 ..... ..... 001 ..... 1010011"     F             [F]           "fmax.s";
        FeqS          "1010000 ..... ..... 010 ..... 1010011"     F_COMPARE     [F]           "feq.s";
        FltS          "1010000 ..... ..... 001 ..... 1010011"     F_COMPARE     [F]           "flt.s";
        FleS          "1010000 ..... ..... 000 ..... 1010011"     F_COMPARE     [F]           "fle.s";
        FclassS       "1110000 00000 ..... 001 ..... 1010011"     F_TO_X        [F]           "fclass.s";
        FcvtWS        "1100000 00000 ..... ... ..... 1010011"     F_TO_X_RM     [F]           "fcvt.w.s";
        FcvtWuS       "1100000 00001 ..... ... ..... 1010011"     F_TO_X_RM     [F]           "fcvt.wu.s";
        FcvtLS        "1100000 00010 ..... ... ..... 1010011"     F_TO_X_RM     [F]           "fcvt.l.s";
        FcvtLuS       "1100000 00011 ..... ... ..... 1010011"     F_TO_X_RM     [F]           "fcvt.lu.s";
        FcvtSW        "1101000 00000 ..... ... ..... 1010011"     X_TO_F_RM     [F]           "fcvt.s.w";
        FcvtSWu       "1101000 00001 ..... ... ..... 1010011"     X_TO_F_RM     [F]           "fcvt.s.wu";
        FcvtSL        "1101000 00010 ..... ... ..... 1010011"     X_TO_F_RM     [F]           "fcvt.s.l";
        FcvtSLu       "1101000 00011 ..... ... ..... 1010011"     X_TO_F_RM     [F]           "fcvt.s.lu";
        FmvXW         "1110000 00000 ..... 000 ..... 1010011"     F_TO_X        [F]           "fmv.x.w";
        FmvWX         "1111000 00000 ..... 000 ..... 1010011"     X_TO_F        [F]           "fmv.w.x";

        // D.
        Fld           "............ ..... 011 ..... 0000111"      FLOAD         [D]           "fld";
        Fsd           "....... ..... ..... 011 ..... 0100111"     FSTORE        [D]           "fsd";
        FmaddD        "..... 01 ..... ..... ... ..... 1000011"    FMA           [D]           "fmadd.d";
        FmsubD        "..... 01 ..... ..... ... ..... 1000111"    FMA           [D]           "fmsub.d";
        FnmsubD       "..... 01 ..... ..... ... ..... 1001011"    FMA           [D]           "fnmsub.d";
        FnmaddD       "..... 01 ..... ..... ... ..... 1001111"    FMA           [D]           "fnmadd.d";
        FaddD         "0000001 ..... ..... ... ..... 1010011"     F_RM          [D]           "fadd.d";
        FsubD         "0000101 ..... ..... ... ..... 1010011"     F_RM          [D]           "fsub.d";
        FmulD         "0001001 ..... ..... ... ..... 1010011"     F_RM          [D]           "fmul.d";
        FdivD         "0001101 ..... ..... ... ..... 1010011"     F_RM          [D]           "fdiv.d";
        FsqrtD        "0101101 00000 ..... ... ..... 1010011"     F_UNARY_RM    [D]           "fsqrt.d";
        FsgnjD        "0010001 ..... ..... 000 ..... 1010011"     F             [D]           "fsgnj.d";
        FsgnjnD       "0010001 ..... ..... 001 ..... 1010011"     F             [D]           "fsgnjn.d";
        FsgnjxD       "0010001 ..... ..... 010 ..... 1010011"     F             [D]           "fsgnjx.d";
        FminD         "0010101 ..... ..... 000 ..... 1010011"     F             [D]           "fmin.d";
        FmaxD         "0010101 ..... ..... 001 ..... 1010011"     F             [D]           "fmax.d";
        FeqD          "1010001 ..... ..... 010 ..... 1010011"     F_COMPARE     [D]           "feq.d";
        FltD          "1010001 ..... ..... 001 ..... 1010011"     F_COMPARE     [D]           "flt.d";
        FleD          "1010001 ..... ..... 000 ..... 1010011"     F_COMPARE     [D]           "fle.d";
        FclassD       "1110001 00000 ..... 001 ..... 1010011"     F_TO_X        [D]           "fclass.d";
        FcvtWD        "1100001 00000 ..... ... ..... 1010011"     F_TO_X_RM     [D]           "fcvt.w.d";
        FcvtWuD       "1100001 00001 ..... ... ..... 1010011"     F_TO_X_RM     [D]           "fcvt.wu.d";
        FcvtLD        "1100001 00010 ..... ... ..... 1010011"     F_TO_X_RM     [D]           "fcvt.l.d";
        FcvtLuD       "1100001 00011 ..... ... ..... 1010011"     F_TO_X_RM     [D]           "fcvt.lu.d";
        FcvtDW        "1101001 00000 ..... ... ..... 1010011"     X_TO_F_EXACT  [D]           "fcvt.d.w";
        FcvtDWu       "1101001 00001 ..... ... ..... 1010011"     X_TO_F_EXACT  [D]           "fcvt.d.wu";
        FcvtDL        "1101001 00010 ..... ... ..... 1010011"     X_TO_F_RM     [D]           "fcvt.d.l";
        FcvtDLu       "1101001 00011 ..... ... ..... 1010011"     X_TO_F_RM     [D]           "fcvt.d.lu";
        FmvXD         "1110001 00000 ..... 000 ..... 1010011"     F_TO_X        [D]           "fmv.x.d";
        FmvDX         "1111001 00000 ..... 000 ..... 1010011"     X_TO_F        [D]           "fmv.d.x";
        FcvtSD        "0100000 00001 ..... ... ..... 1010011"     F_UNARY_RM    [D]           "fcvt.s.d";
        FcvtDS        "0100001 00000 ..... ... ..... 1010011"     F_UNARY_EXACT [D]           "fcvt.d.s";

        // Zfhmin and Zfh.
        Flh           "............ ..... 001 ..... 0000111"      FLOAD         [Zfhmin]      "flh";
        Fsh           "....... ..... ..... 001 ..... 0100111"     FSTORE        [Zfhmin]      "fsh";
        FmaddH        "..... 10 ..... ..... ... ..... 1000011"    FMA           [Zfh]         "fmadd.h";
        FmsubH        "..... 10 ..... ..... ... ..... 1000111"    FMA           [Zfh]         "fmsub.h";
        FnmsubH       "..... 10 ..... ..... ... ..... 1001011"    FMA           [Zfh]         "fnmsub.h";
        FnmaddH       "..... 10 ..... ..... ... ..... 1001111"    FMA           [Zfh]         "fnmadd.h";
        FaddH         "0000010 ..... ..... ... ..... 1010011"     F_RM          [Zfh]         "fadd.h";
        FsubH         "0000110 ..... ..... ... ..... 1010011"     F_RM          [Zfh]         "fsub.h";
        FmulH         "0001010 ..... ..... ... ..... 1010011"     F_RM          [Zfh]         "fmul.h";
        FdivH         "0001110 ..... ..... ... ..... 1010011"     F_RM          [Zfh]         "fdiv.h";
        FsqrtH        "0101110 00000 ..... ... ..... 1010011"     F_UNARY_RM    [Zfh]         "fsqrt.h";
        FsgnjH        "0010010 ..... ..... 000 ..... 1010011"     F             [Zfh]         "fsgnj.h";
        FsgnjnH       "0010010 ..... ..... 001 ..... 1010011"     F             [Zfh]         "fsgnjn.h";
        FsgnjxH       "0010010 ..... ..... 010 ..... 1010011"     F             [Zfh]         "fsgnjx.h";
        FminH         "0010110 ..... ..... 000 ..... 1010011"     F             [Zfh]         "fmin.h";
        FmaxH         "0010110 ..... ..... 001 ..... 1010011"     F             [Zfh]         "fmax.h";
        FeqH          "1010010 ..... ..... 010 ..... 1010011"     F_COMPARE     [Zfh]         "feq.h";
        FltH          "1010010 ..... ..... 001 ..... 1010011"     F_COMPARE     [Zfh]         "flt.h";
        FleH          "1010010 ..... ..... 000 ..... 1010011"     F_COMPARE     [Zfh]         "fle.h";
        FclassH       "1110010 00000 ..... 001 ..... 1010011"     F_TO_X        [Zfh]         "fclass.h";
        FcvtWH        "1100010 00000 ..... ... ..... 1010011"     F_TO_X_RM     [Zfh]         "fcvt.w.h";
        FcvtWuH       "1100010 00001 ..... ... ..... 1010011"     F_TO_X_RM     [Zfh]         "fcvt.wu.h";
        FcvtLH        "1100010 00010 ..... ... ..... 1010011"     F_TO_X_RM     [Zfh]         "fcvt.l.h";
        FcvtLuH       "1100010 00011 ..... ... ..... 1010011"     F_TO_X_RM     [Zfh]         "fcvt.lu.h";
        FcvtHW        "1101010 00000 ..... ... ..... 1010011"     X_TO_F_RM     [Zfh]         "fcvt.h.w";
        FcvtHWu       "1101010 00001 ..... ... ..... 1010011"     X_TO_F_RM     [Zfh]         "fcvt.h.wu";
        FcvtHL        "1101010 00010 ..... ... ..... 1010011"     X_TO_F_RM     [Zfh]         "fcvt.h.l";
        FcvtHLu       "1101010 00011 ..... ... ..... 1010011"     X_TO_F_RM     [Zfh]         "fcvt.h.lu";
        FmvXH         "1110010 00000 ..... 000 ..... 1010011"     F_TO_X        [Zfhmin]      "fmv.x.h";
        FmvHX         "1111010 00000 ..... 000 ..... 1010011"     X_TO_F        [Zfhmin]      "fmv.h.x";
        FcvtSH        "0100000 00010 ..... ... ..... 1010011"     F_UNARY_EXACT [Zfhmin]      "fcvt.s.h";
        FcvtHS        "0100010 00000 ..... ... ..... 1010011"     F_UNARY_RM    [Zfhmin]      "fcvt.h.s";
        FcvtDH        "0100001 00010 ..... ... ..... 1010011"     F_UNARY_EXACT [D Zfhmin]    "fcvt.d.h";
        FcvtHD        "0100010 00001 ..... ... ..... 1010011"     F_UNARY_RM    [D Zfhmin]    "fcvt.h.d";

        // Zfa. `fmvh.x.d` and `fmvp.d.x` exist on RV32 only.
        FliS          "1111000 00001 ..... 000 ..... 1010011"     FLI           [Zfa]         "fli.s";
        FminmS        "0010100 ..... ..... 010 ..... 1010011"     F             [Zfa]         "fminm.s";
        FmaxmS        "0010100 ..... ..... 011 ..... 1010011"     F             [Zfa]         "fmaxm.s";
        FroundS       "0100000 00100 ..... ... ..... 1010011"     F_UNARY_RM    [Zfa]         "fround.s";
        FroundnxS     "0100000 00101 ..... ... ..... 1010011"     F_UNARY_RM    [Zfa]         "froundnx.s";
        FleqS         "1010000 ..... ..... 100 ..... 1010011"     F_COMPARE     [Zfa]         "fleq.s";
        FltqS         "1010000 ..... ..... 101 ..... 1010011"     F_COMPARE     [Zfa]         "fltq.s";
        FliD          "1111001 00001 ..... 000 ..... 1010011"     FLI           [D Zfa]       "fli.d";
        FminmD        "0010101 ..... ..... 010 ..... 1010011"     F             [D Zfa]       "fminm.d";
        FmaxmD        "0010101 ..... ..... 011 ..... 1010011"     F             [D Zfa]       "fmaxm.d";
        FroundD       "0100001 00100 ..... ... ..... 1010011"     F_UNARY_RM    [D Zfa]       "fround.d";
        FroundnxD     "0100001 00101 ..... ... ..... 1010011"     F_UNARY_RM    [D Zfa]       "froundnx.d";
        FleqD         "1010001 ..... ..... 100 ..... 1010011"     F_COMPARE     [D Zfa]       "fleq.d";
        FltqD         "1010001 ..... ..... 101 ..... 1010011"     F_COMPARE     [D Zfa]       "fltq.d";
        FliH          "1111010 00001 ..... 000 ..... 1010011"     FLI           [Zfh Zfa]     "fli.h";
        FminmH        "0010110 ..... ..... 010 ..... 1010011"     F             [Zfh Zfa]     "fminm.h";
        FmaxmH        "0010110 ..... ..... 011 ..... 1010011"     F             [Zfh Zfa]     "fmaxm.h";
        FroundH       "0100010 00100 ..... ... ..... 1010011"     F_UNARY_RM    [Zfh Zfa]     "fround.h";
        FroundnxH     "0100010 00101 ..... ... ..... 1010011"     F_UNARY_RM    [Zfh Zfa]     "froundnx.h";
        FleqH         "1010010 ..... ..... 100 ..... 1010011"     F_COMPARE     [Zfh Zfa]     "fleq.h";
        FltqH         "1010010 ..... ..... 101 ..... 1010011"     F_COMPARE     [Zfh Zfa]     "fltq.h";
        FcvtmodWD     "1100001 01000 ..... 001 ..... 1010011"     F_TO_X_RM     [D Zfa]       "fcvtmod.w.d";
    } };
}

/// An encoding: which bits are fixed, and to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Ones where the bit is fixed.
    pub mask: u32,
    /// The fixed bits; zero elsewhere.
    pub value: u32,
}

impl Pattern {
    /// Parses `width` bit columns, most significant first.
    pub(crate) const fn parse(columns: &str, width: u32) -> Pattern {
        let columns = columns.as_bytes();
        let (mut mask, mut value, mut bits, mut i) = (0u32, 0u32, 0, 0);
        while i < columns.len() {
            if columns[i] != b' ' {
                mask = mask << 1 | (columns[i] != b'.') as u32;
                value = value << 1 | (columns[i] == b'1') as u32;
                assert!(matches!(columns[i], b'0' | b'1' | b'.'));
                bits += 1;
            }
            i += 1;
        }
        assert!(bits == width, "wrong number of bit columns");
        Pattern { mask, value }
    }

    /// Whether `bits` has this encoding.
    #[inline(always)]
    pub const fn matches(self, bits: u32) -> bool {
        bits & self.mask == self.value
    }

    /// Whether some word has both encodings.
    pub const fn overlaps(self, other: Pattern) -> bool {
        (self.value ^ other.value) & self.mask & other.mask == 0
    }
}

/// A row of the instruction table.
#[derive(Debug)]
pub struct Row {
    /// The instruction.
    pub op: Opcode,
    /// Its encoding.
    pub pattern: Pattern,
    /// Its operands in assembly order.
    pub operands: &'static [Operand],
    /// The extensions that must all be enabled.
    pub needs: Isa,
    /// What the assembler calls it; suffixes for aq and rl or an operation number are operands.
    pub mnemonic: &'static str,
    /// The row whose encodings include this one's.
    pub refines: Option<Opcode>,
}

macro_rules! define_opcodes {
    ($($name:ident $columns:literal $format:ident [$($needs:ident)+] $mnemonic:literal
       $(refines $coarser:ident)?;)*) => {
        /// An instruction, independent of its operands and of whether it was written compressed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Opcode { $(#[doc = concat!("`", $mnemonic, "`: `", $columns, "`")] $name),* }

        impl Opcode {
            /// How many there are.
            pub const COUNT: usize = [$(Opcode::$name),*].len();
        }

        /// The rows, indexed by [`Opcode`].
        pub static ROWS: &[Row] = &[$(Row {
            op: Opcode::$name,
            pattern: const { Pattern::parse($columns, 32) },
            operands: format::$format,
            needs: Isa::exactly(&[$(Extension::$needs),+]),
            mnemonic: $mnemonic,
            refines: [$(Some(Opcode::$coarser),)? None][0],
        }),*];
    };
}
for_each_insn!(define_opcodes);

impl Opcode {
    /// This instruction's row of the table.
    #[inline]
    pub fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// What the assembler calls it.
    pub fn mnemonic(self) -> &'static str {
        self.row().mnemonic
    }
}

/// A decoded instruction. Fields that its format does not have are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// What it does.
    pub op: Opcode,
    /// Destination register, integer or floating-point as the instruction says.
    pub rd: u8,
    /// First source; of `csrr*i` the 5-bit immediate.
    pub rs1: u8,
    /// Second source; the data of a store.
    pub rs2: u8,
    /// Third source of fused multiply-adds.
    pub rs3: u8,
    /// Rounding mode (7: dynamic; never 5 or 6) of floating point; of atomics aq (bit 1) and rl (bit 0).
    pub rm: u8,
    /// Length of the encoding in bytes, 2 or 4.
    pub len: u8,
    /// Immediate, shift amount, byte offset, CSR number, `fence` sets, or number of a constant or operation.
    pub imm: i64,
    /// The encoding as fetched, a compressed one in the low half: what an illegal-instruction trap puts in
    /// xtval.
    pub bits: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_declared_refinements_overlap() {
        for (i, a) in ROWS.iter().enumerate() {
            for b in &ROWS[i + 1..] {
                let declared = a.refines == Some(b.op) || b.refines == Some(a.op);
                assert_eq!(a.pattern.overlaps(b.pattern), declared, "{:?} and {:?}", a.op, b.op);
            }
        }
    }

    #[test]
    fn a_refinement_is_a_proper_subset() {
        for row in ROWS {
            if let Some(coarser) = row.refines {
                let coarser = coarser.row().pattern;
                assert_eq!(row.pattern.mask & coarser.mask, coarser.mask, "{:?}", row.op);
                assert_ne!(row.pattern.mask, coarser.mask, "{:?}", row.op);
            }
        }
    }

    #[test]
    fn rows_are_indexed_by_opcode_and_mnemonics_are_distinct() {
        let mut mnemonics = std::collections::HashSet::new();
        for (i, row) in ROWS.iter().enumerate() {
            assert_eq!(row.op as usize, i);
            assert!(mnemonics.insert(row.mnemonic), "{} is there twice", row.mnemonic);
        }
    }

    #[test]
    fn operands_cover_the_open_bits_and_nothing_else() {
        for row in ROWS {
            let operands = row.operands.iter().fold(0, |bits, operand| bits | operand.field());
            match row.op {
                // Their other fields are reserved and ignored.
                Opcode::Fence | Opcode::FenceI => assert_eq!(row.pattern.mask, 0x0000_707f),
                // The rounding mode, and the lowest bit of each register, are operands with one value.
                Opcode::FcvtmodWD => assert_eq!(operands & row.pattern.mask, 0x0000_7000),
                Opcode::AmocasQ => assert_eq!(operands & row.pattern.mask, 0x0010_0080),
                op => assert_eq!(operands, !row.pattern.mask, "{op:?}"),
            }
        }
    }

    #[test]
    fn opcode_names_follow_the_mnemonics() {
        for row in ROWS {
            let words = row.mnemonic.split('.');
            let name: String = words.map(|w| w[..1].to_uppercase() + &w[1..]).collect();
            assert_eq!(format!("{:?}", row.op), name);
        }
    }
}
